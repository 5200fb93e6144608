//! The real binary, end to end: what it prints, writes, refuses and resumes.

mod contract;
mod estimate;
mod output;
mod refusals;
mod resume;
mod sandbox;
