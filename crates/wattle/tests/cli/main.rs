//! The real binary, end to end: what it prints, writes, refuses and resumes.

mod accel;
mod accel_map;
mod any_model;
mod cases;
mod contract;
mod data;
mod estimate;
mod facts;
mod full_disk;
mod golden;
mod measure;
mod naming;
mod normalise;
mod normalised;
mod output;
mod peers;
mod predict;
mod refusals;
mod remedies;
mod resume;
mod sandbox;
mod shares;
mod training;
