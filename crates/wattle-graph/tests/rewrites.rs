//! Rewrites change how a graph is computed, never what: 10,000 random small graphs, rewritten and not, are interpreted
//! and compared. The same graphs in every run; a failure prints the smallest graph that fails.

use std::collections::BTreeMap;

use wattle_graph::rewrite::{self, INFERENCE_PASSES, Outcome, TRAINING_PASSES};
use wattle_graph::suite::{Drawn, LEVEL_STEP, Purpose, RandomGraph, difference};
use wattle_graph::{Dim, Graph, Shape, Source, Tensor, interpret};

/// Floats are rounded to f32 after every operator, in another order once operators are fused.
const TOLERANCE: f64 = 1e-4;

/// How often each pass was applied.
type Applied = BTreeMap<&'static str, usize>;

/// Compares what `check` says of `count` graphs; names the smallest graph of each failure.
fn each(purpose: Purpose, count: u64, mut check: impl FnMut(&Drawn) -> Result<(), String>) {
    let mut drawn = 0;
    for seed in 0..count {
        let random = RandomGraph::new(purpose, seed);
        // Operators without a gradient make no graph for training.
        let Ok(graph) = random.draw() else { continue };
        drawn += 1;
        if check(&graph).is_ok() {
            continue;
        }
        let smallest = random.shrunk(|smaller| {
            let graph = smaller.draw();
            graph.is_ok_and(|graph| rewritten_differs(purpose, &graph))
        });
        let graph = smallest.draw().unwrap();
        let reason = check(&graph).err().unwrap_or_default();
        panic!("{purpose:?} graph {seed}: {reason}\n{}", graph.graph);
    }
    assert!(drawn * 10 > count * 9, "{drawn} graphs of {count} could be drawn");
}

fn rewritten_differs(purpose: Purpose, drawn: &Drawn) -> bool {
    rewritten(purpose, drawn, &mut Applied::new()).is_err()
}

fn rewritten(purpose: Purpose, drawn: &Drawn, applied: &mut Applied) -> Result<(), String> {
    let text = |e: wattle_graph::GraphError| e.to_string();
    let (graph, passes) = match purpose {
        Purpose::Training => (drawn.graph.clone(), TRAINING_PASSES),
        _ => (rewrite::freeze(&drawn.graph, &drawn.parameters).map_err(text)?, INFERENCE_PASSES),
    };
    let (after, log) = rewrite::run_passes(&graph, passes, None).map_err(text)?;
    after.check().map_err(text)?;
    for entry in log.iter().filter(|entry| entry.outcome == Outcome::Applied) {
        *applied.entry(entry.pass).or_default() += 1;
    }
    let results = |graph: &Graph| interpret(graph, &mut drawn.parameters.clone(), &drawn.feeds).map_err(text);
    let (before, after) = (results(&graph)?, results(&after)?);
    // A sum of bytes is exact, a sum of floats is not: on the border of two steps they may part.
    let steps = if purpose == Purpose::Quantised { 1.01 * f64::from(LEVEL_STEP) } else { 0.0 };
    difference(&before, &after, TOLERANCE, steps).map_or(Ok(()), Err)
}

#[track_caller]
fn all_applied(applied: &Applied, passes: &[&str], times: usize) {
    for pass in passes {
        let found = applied.get(pass).copied().unwrap_or(0);
        assert!(found >= times, "{pass} was applied {found} times: {applied:?}");
    }
}

#[test]
fn graphs_for_inference_compute_the_same_after_every_pass() {
    let mut applied = Applied::new();
    each(Purpose::Inference, 6000, |drawn| rewritten(Purpose::Inference, drawn, &mut applied));
    let passes = [
        "common-subexpressions",
        "fold-affine",
        "fold-batch-norm",
        "fold-constants",
        "fuse",
        "recognise-activation",
        "recognise-attention",
        "recognise-layer-norm",
    ];
    all_applied(&applied, &passes, 50);
}

#[test]
fn graphs_for_training_compute_the_same_gradients_after_every_pass() {
    let mut applied = Applied::new();
    each(Purpose::Training, 2000, |drawn| rewritten(Purpose::Training, drawn, &mut applied));
    all_applied(&applied, &["common-subexpressions", "fuse-batch-norm", "fuse"], 50);
}

#[test]
fn arithmetic_in_bytes_is_at_most_a_step_away_from_what_it_replaces() {
    let mut applied = Applied::new();
    each(Purpose::Quantised, 1000, |drawn| rewritten(Purpose::Quantised, drawn, &mut applied));
    all_applied(&applied, &["fuse-quantized", "fold-quantized"], 50);
}

/// The graph with the first extent of every input unknown.
fn without_batch(drawn: &Drawn) -> Option<Graph> {
    let graph = &drawn.graph;
    let mut free = Graph::new("free");
    let mut map = vec![];
    for id in graph.value_ids() {
        let value = graph.value(id);
        map.push(match &value.source {
            Source::Input => {
                let mut dims: Vec<Dim> = value.ty.shape.dims()?.to_vec();
                dims[0] = Dim::symbol("N");
                Some(free.input(value.name.clone(), value.ty.dtype, dims))
            }
            Source::Constant(tensor) => Some(free.constant(tensor.clone())),
            Source::Parameter(p) => Some(free.parameter(p.clone(), value.ty.dtype, &graph.extents(id).ok()?)),
            Source::Node { .. } => None,
        });
    }
    for node in graph.nodes() {
        let operands: Vec<_> = node.inputs.iter().map(|i| i.and_then(|i| map[i.index()])).collect();
        // Some operators insist on knowing their operands.
        let outputs = free.apply_all(node.op.clone(), &operands, "").ok()?;
        node.outputs.iter().zip(outputs).for_each(|(old, new)| map[old.index()] = Some(new));
    }
    free.set_outputs(graph.outputs().iter().filter_map(|o| map[o.index()]).collect());
    Some(free)
}

#[test]
fn a_bound_graph_computes_what_it_did_before() {
    let mut bound = 0;
    each(Purpose::Inference, 500, |drawn| {
        let Some(free) = without_batch(drawn) else { return Ok(()) };
        let shapes: Vec<(&str, &[usize])> =
            drawn.feeds.iter().map(|(name, t)| (name.as_str(), t.shape())).collect();
        let text = |e: wattle_graph::GraphError| e.to_string();
        let after = rewrite::bind(&free, &shapes).map_err(text)?;
        let results =
            |graph: &Graph| interpret(graph, &mut drawn.parameters.clone(), &drawn.feeds).map_err(text);
        bound += 1;
        difference(&results(&drawn.graph)?, &results(&after)?, TOLERANCE, 0.0).map_or(Ok(()), Err)
    });
    assert!(bound > 250, "{bound}");
}

#[test]
fn parts_of_a_batch_are_parts_of_its_results() {
    let mut parted = 0;
    each(Purpose::Inference, 500, |drawn| {
        let text = |e: wattle_graph::GraphError| e.to_string();
        let frozen = rewrite::freeze(&drawn.graph, &drawn.parameters).map_err(text)?;
        let (frozen, _) = rewrite::run_passes(&frozen, INFERENCE_PASSES, None).map_err(text)?;
        let batch = drawn.feeds.values().next().map_or(1, |t| t.shape()[0]);
        let Ok(part) = rewrite::part_of_batch(&frozen, batch).map_err(text)? else { return Ok(()) };
        let whole = interpret(&frozen, &mut drawn.parameters.clone(), &drawn.feeds).map_err(text)?;
        let mut pieces: Vec<Vec<f64>> = vec![vec![]; whole.len()];
        for i in 0..batch {
            let share = |t: &Tensor| {
                let length = t.len() / batch;
                let shape = [&[t.shape()[0] / batch], &t.shape()[1..]].concat();
                t.take(shape, &(i * length..(i + 1) * length).map(Some).collect::<Vec<_>>())
            };
            let feeds = drawn.feeds.iter().map(|(name, t)| (name.clone(), share(t))).collect();
            let results = interpret(&part, &mut drawn.parameters.clone(), &feeds).map_err(text)?;
            pieces.iter_mut().zip(&results).for_each(|(all, t)| all.extend(t.to_f64().iter()));
        }
        parted += 1;
        let joined: Vec<Tensor> = whole
            .iter()
            .zip(pieces)
            .map(|(t, values)| {
                let fits = values.len() == t.len();
                Tensor::from_f64(
                    t.dtype(),
                    if fits { t.shape().to_vec() } else { vec![values.len()] },
                    values,
                )
            })
            .collect();
        difference(&whole, &joined, TOLERANCE, 0.0).map_or(Ok(()), Err)
    });
    assert!(parted > 100, "{parted}");
}

#[test]
fn a_vector_added_to_a_product_with_a_bias_leaves_the_bias() {
    use wattle_graph::ops::{Binary, BinaryFunction, Gemm};
    let mut graph = Graph::new("gemm-bias-add");
    let x = graph.input("x", wattle_graph::DType::F32, Shape::known(&[1, 2]));
    let w = graph.constant(Tensor::f32([2, 2], vec![1.0, 0.0, 0.0, 1.0]));
    let [b, k] = [[10.0, 20.0], [100.0, 200.0]].map(|v| graph.constant(Tensor::f32([2], v.to_vec())));
    let y = graph.apply(Gemm::default(), &[x, w, b]).unwrap();
    let y = graph.apply(Binary { function: BinaryFunction::Add }, &[y, k]).unwrap();
    graph.output(y);
    let (after, _) = rewrite::run_passes(&graph, INFERENCE_PASSES, None).unwrap();
    let feeds = BTreeMap::from([("x".to_string(), Tensor::f32([1, 2], vec![1.0, 2.0]))]);
    let y = interpret(&after, &mut Default::default(), &feeds).unwrap();
    assert_eq!(*y[0].to_f64(), [111.0, 222.0]);
}
