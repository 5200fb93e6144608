//! How long each step of a plan takes: one way of measuring it for `profile` and `bench`.

use wattle_engine::Session;
use wattle_graph::NodeId;

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
    session.run()?;
    let mut samples: Vec<Vec<f64>> = vec![];
    for _ in 0..runs.max(1) {
        session.run_timed()?;
        samples.push(session.step_times().iter().map(|t| t.as_secs_f64()).collect());
    }
    let steps = session.plan().steps().enumerate().map(|(index, step)| {
        let mut column: Vec<f64> = samples.iter().map(|s| s[index]).collect();
        column.sort_by(f64::total_cmp);
        StepTime {
            node: step.node,
            name: step.name.clone(),
            kernel: step.kernel.clone(),
            why: step.why.clone(),
            seconds: column[column.len() / 2],
        }
    });
    Ok(steps.collect())
}
