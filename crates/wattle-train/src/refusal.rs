//! Errors of graphs and of the engine, told as errors of training.

use wattle_data::error::Error;
use wattle_engine::EngineError;
use wattle_graph::GraphError;

/// What a graph refuses is the user's to mend.
pub(crate) fn of_graph(place: &str) -> impl Fn(GraphError) -> Error + '_ {
    move |error| Error::input(place, error)
}

/// What the engine refuses is the user's to mend, unless it failed while running.
pub(crate) fn of_engine(place: &str) -> impl Fn(EngineError) -> Error + '_ {
    move |error| match error {
        EngineError::Node { .. } | EngineError::OutOfMemory(_) | EngineError::Defect(_) => {
            Error::machine(place, error)
        }
        _ => Error::input(place, error),
    }
}
