//! How long each step of a plan takes: one way of measuring it for `profile` and `bench`.

use wattle_engine::Session;
use wattle_graph::NodeId;
use wattle_meter::timing::{Times, Turns, listed};

use crate::error::Result;

/// A step of a plan and its time.
pub struct StepTime {
    /// The node it computes, of the plan's graph; `None` for a change of layout.
    pub node: Option<NodeId>,
    /// The node's name.
    pub name: String,
    /// What computes it.
    pub kernel: String,
    /// Why that kernel, where there was a choice.
    pub why: Option<String>,
    /// Median over the runs.
    pub seconds: f64,
}

/// Times every step of a session whose inputs are set: medians of `runs` runs after one that is not counted.
pub fn measure(session: &mut Session, runs: usize) -> Result<Vec<StepTime>> {
    let times = steps(session, &Turns::exactly(runs).warmed(1))?;
    let steps = session.plan().steps().zip(&times).map(|(step, times)| StepTime {
        node: step.node,
        name: step.name.clone(),
        kernel: step.kernel.clone(),
        why: step.why.clone(),
        seconds: times.median(),
    });
    Ok(steps.collect())
}

/// The times of every step of a session whose inputs are set, in the order of the plan.
pub fn steps(session: &mut Session, turns: &Turns) -> Result<Vec<Times>> {
    let count = session.plan().steps().count();
    listed(turns, count, |times| {
        session.run_timed()?;
        times.copy_from_slice(session.step_times());
        Ok(())
    })
}
