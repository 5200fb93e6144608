//! Joules, grams, dollars: meters, estimates, receipts.
//!
//! The central type is the [`Receipt`]: what a command cost and how that is known. Every number in it is a
//! [`Quantity`], with unit, interval and [`Source`]; a modelled joule is never shown as a measured one, and
//! what is unknown is absent, never zero.
//!
//! This crate opens no socket, needs no privileges and prints nothing.

pub mod environment;
mod factors;
mod machine;
mod quantity;
mod receipt;
mod source;
mod timestamp;
mod unit;
mod warning;

pub use factors::{FactorError, FactorTexts, Factors};
pub use machine::{Machine, Software};
pub use quantity::{Quantity, QuantityError};
pub use receipt::{
    Boundary, Component, Coverage, Energy, PowerSummary, Receipt, SCHEMA, Samples, Schema, ScopeRecord,
    StopReason, Work,
};
pub use source::{Source, SourceError};
pub use timestamp::{Timestamp, TimestampError};
pub use unit::Unit;
pub use warning::{Warning, WarningKind};
