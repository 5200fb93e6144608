//! Published values against the model, and the page that shows them: hits and misses alike.

mod pe_cycles;
mod published;
mod scratch;
