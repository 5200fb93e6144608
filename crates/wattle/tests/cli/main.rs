//! The real binary, end to end: what it prints, writes, refuses and resumes.

mod accel;
mod contract;
mod output;
mod refusals;
mod resume;
mod sandbox;
