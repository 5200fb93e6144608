//! Evaluation: how good a network is on all samples of a source, each seen once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde::Serialize;
use wattle_data::error::{Error, Result};
use wattle_data::{Batch, ColumnInfo, Loader, Source};
use wattle_engine::{Plan, PlanOptions, Session, Store};
use wattle_graph::rewrite::in_inference_mode;
use wattle_graph::{GraphError, Model};

use crate::binding::{self, Bound};
use crate::metric::Metric;
use crate::objective::{Attached, Kind, Objective};
use crate::refusal::{of_engine, of_graph};
use crate::tally::Tally;
use crate::wires::{self, Wire};

/// Batches prepared ahead of the session.
pub(crate) const PREFETCH: usize = 2;

/// How good a network is on some samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Share of right classes, 0 to 1, or of right answers where that is asked for; `None` where the objective does not
    /// judge classes and nobody asks.
    pub accuracy: Option<f64>,
    /// Mean loss.
    pub loss: f64,
    /// Number of samples.
    pub samples: usize,
    /// The metrics asked for, or the usual ones, by name.
    pub metrics: BTreeMap<String, f64>,
    /// The metric that counts: the first that was asked for, or the usual one; `None` where nothing is compared with
    /// targets, so that only the loss can be told.
    pub chief: Option<Metric>,
    /// The accuracy of always answering the class that is most frequent in these samples; `None` as above. A network that
    /// is no better has learnt nothing.
    pub chance: Option<f64>,
}

/// A network on batches of one size.
struct Judge {
    session: Session,
    wires: Vec<Wire>,
    has_weight: bool,
    /// Position among the outputs, extents, and the column it is compared with.
    judged: Option<(usize, Vec<usize>, usize)>,
    kind: Option<Kind>,
}

impl Judge {
    fn new(
        model: &Model,
        columns: &[ColumnInfo],
        batch: usize,
        objective: &dyn Objective,
        plan: &PlanOptions,
    ) -> Result<Judge> {
        let place = "the model";
        let refuse = of_graph(place);
        let Bound { model: mut bound, feeds } = binding::bind(model, columns, batch).map_err(&refuse)?;
        let graph = &mut bound.graph;
        let outputs = graph.outputs().to_vec();
        let Attached { loss, weight, ports, judged, .. } =
            objective.attach(graph, &outputs).map_err(&refuse)?;
        let mut wanted = vec![loss];
        wanted.extend(weight);
        let mut found = None;
        if let Some(judged) = &judged {
            let input = graph.label(judged.target);
            let port = ports.iter().find(|port| port.input == input);
            let column = columns.iter().position(|c| port.is_some_and(|port| port.column == c.name));
            let column = column.ok_or_else(|| {
                refuse(GraphError::Invalid(format!("no column feeds the targets `{input}`")))
            })?;
            found = Some((wanted.len(), graph.extents(judged.output).map_err(&refuse)?, column));
            wanted.push(judged.output);
        }
        graph.set_outputs(wanted);
        let wires = wires::wires(graph, &feeds, &ports, columns).map_err(&refuse)?;
        let store = Store::new(&bound.parameters);
        let compiled = Plan::compile(graph, &store, plan).map_err(of_engine(place))?;
        let session = Session::new(compiled, &store).map_err(of_engine(place))?;
        let kind = judged.map(|judged| judged.kind);
        Ok(Judge { session, wires, has_weight: weight.is_some(), judged: found, kind })
    }

    /// The rank of what is judged.
    fn rank(&self) -> usize {
        self.judged.as_ref().map_or(0, |(_, extents, _)| extents.len())
    }

    /// The loss of a batch's real samples, and what it is a mean over; answers go into the tally.
    fn judge(&mut self, batch: &Batch, tally: Option<&mut Tally>) -> Result<(f64, f64)> {
        let place = "evaluation";
        wires::feed(&mut self.session, &self.wires, batch, batch.real)?;
        self.session.run().map_err(of_engine(place))?;
        let loss = f64::from(self.session.output::<f32>(0).map_err(of_engine(place))?[0]);
        let weight = match self.has_weight {
            true => f64::from(self.session.output::<f32>(1).map_err(of_engine(place))?[0]),
            false => batch.real as f64,
        };
        if let (Some(tally), Some((output, extents, column))) = (tally, &self.judged) {
            let answers = self.session.output::<f32>(*output).map_err(of_engine(place))?;
            let targets = batch.columns[*column].to_f64();
            let count = targets.len() / batch.columns[*column].extents.first().copied().unwrap_or(1).max(1);
            tally.add(answers, extents, &targets[..batch.real * count]).map_err(|(label, classes)| {
                let found = format!("a sample has the class {label}; the model has {classes} outputs");
                Error::input("the model", found).expected("one output for each class")
            })?;
        }
        Ok((loss, weight))
    }
}

/// Judges `model` on one epoch of `source`, in inference mode whatever mode its graph is in: as it answers once it is
/// written. Without named metrics the usual ones are told.
///
/// The last batch may be a part of one: its padding counts nowhere.
///
/// # Errors
/// When the model does not fit the columns, or a metric does not fit the objective.
pub fn evaluate(
    model: &Model,
    source: &Arc<dyn Source>,
    objective: &dyn Objective,
    metrics: &[Metric],
    plan: &PlanOptions,
) -> Result<Evaluation> {
    let graph = in_inference_mode(&model.graph).map_err(of_graph("the model"))?;
    let model = &Model { graph, ..model.clone() };
    let columns = source.columns().to_vec();
    let mut loader = Loader::new(source.clone(), PREFETCH);
    let mut judges: BTreeMap<usize, Judge> = BTreeMap::new();
    let mut tally: Option<Tally> = None;
    let mut metrics = metrics.to_vec();
    let (mut total, mut weights, mut samples) = (0.0, 0.0, 0);
    for step in 0..loader.epoch_len() {
        let batch = loader.next_batch()?;
        let judge = match judges.entry(batch.real) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Judge::new(model, &columns, batch.real, objective, plan)?),
        };
        if step == 0 {
            metrics.iter().try_for_each(|metric| metric.check(judge.kind))?;
            if let Some(kind) = judge.kind {
                if metrics.is_empty() {
                    metrics = Metric::of(kind, judge.rank());
                }
                tally = Some(Tally::new(kind, &metrics));
            }
        }
        let (loss, weight) = judge.judge(batch, tally.as_mut())?;
        // A batch without anything that counts has no mean.
        if weight > 0.0 {
            total += loss * weight;
            weights += weight;
        }
        samples += batch.real;
    }
    let loss = if weights > 0.0 { total / weights } else { 0.0 };
    let tells_accuracy = |tally: &&Tally| tally.chance().is_some() || metrics.contains(&Metric::Accuracy);
    Ok(Evaluation {
        accuracy: tally.as_ref().filter(tells_accuracy).map(|tally| tally.value(Metric::Accuracy)),
        loss,
        samples,
        metrics: tally.as_ref().map_or(BTreeMap::new(), |tally| tally.values(&metrics)),
        chief: tally.as_ref().and(metrics.first().copied()),
        chance: tally.as_ref().and_then(Tally::chance),
    })
}
