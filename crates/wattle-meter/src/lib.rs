//! Joules, grams, dollars: meters, estimates, receipts.
//!
//! The central type is the [`Receipt`]: what a command cost and how that is known. Every number in it is a
//! [`Quantity`], with unit, interval and [`Source`]; a modelled joule is never shown as a measured one, and
//! what is unknown is absent, never zero.
//!
//! A [`Meter`] runs beside the work and ends in a receipt; its energy comes from a [`backend`]: the processor's own
//! counters where they may be read, else a model that says so. The [`ledger`] keeps all receipts.
//!
//! This crate opens no socket, needs no privileges and prints nothing.

mod account;
mod accounting;
mod addition;
pub mod backend;
mod battery;
pub mod bystanders;
mod cards;
pub mod compare;
mod container;
mod counter;
#[cfg(test)]
mod cpu_fit;
mod cpu_model;
mod derivation;
pub mod device;
mod doubted;
pub mod environment;
pub mod estimate;
mod explain;
pub mod export;
mod factors;
mod forecast;
mod gpu_metrics;
mod hwmon;
mod integral;
pub mod intensity;
pub mod ledger;
mod machine;
mod meter;
mod microarchitecture;
mod msr;
mod number_file;
mod nvidia;
mod package;
mod perf_power;
mod powercap;
pub mod prices;
mod process_tree;
mod processor_time;
pub mod published;
mod quantity;
mod receipt;
mod running;
pub mod scaling;
pub mod schedule;
mod scope;
mod series;
mod settle;
mod several;
mod source;
mod stated;
mod table;
mod text_file;
mod timestamp;
pub mod timing;
mod unit;
mod visible_cards;
mod warning;

pub use account::Split;
pub use accounting::{Accounting, Accounts};
pub use cpu_model::working_power;
pub use derivation::{Derivation, Step};
pub use explain::{EXPLAINED, explain};
pub use factors::{FactorError, FactorTexts, Factors};
pub use forecast::{Forecast, Progress};
pub use machine::{Machine, Software};
pub use meter::{Gauge, Meter, MeterConfig, Snapshot};
pub use package::{Package, PackageError};
pub use quantity::{Quantity, QuantityError};
pub use receipt::{
    Boundary, Component, Coverage, Energy, Look, PowerSummary, Receipt, SCHEMA, Samples, Schema, ScopeRecord,
    Shares, Stint, StopReason, WorkDone,
};
pub use scope::Scope;
pub use source::{Source, SourceError};
pub use stated::{StatedError, stated};
pub use timestamp::{Timestamp, TimestampError};
pub use unit::Unit;
pub use warning::{Warning, WarningKind};
