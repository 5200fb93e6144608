//! Published values against the model, and the page that shows them: hits and misses alike.

mod chip;
mod eyeriss_v1;
mod hierarchy;
mod page;
mod pe_cycles;
mod pitfalls;
mod published;
mod row_stationary;
mod scaling;
mod timeloop;
mod trace;
mod zigzag;
