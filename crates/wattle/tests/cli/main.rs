//! The real binary, end to end: what it prints, writes, refuses and resumes.

mod contract;
mod full_disk;
mod golden;
mod measure;
mod normalised;
mod output;
mod refusals;
mod resume;
mod sandbox;
