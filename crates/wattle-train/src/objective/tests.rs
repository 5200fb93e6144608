use std::collections::BTreeMap;

use super::*;
use crate::binding::bind_inputs;
use wattle_graph::ops::{Function, MatMul, Softmax, Transpose, Unary};
use wattle_graph::{Dim, Example, Parameter, Parameters, Tensor, differentiate, interpret};

fn loss(text: &str) -> Loss {
    text.parse().unwrap()
}

/// The loss of one f64-exact output of these extents, and its weight.
fn value(text: &str, outputs: &Tensor, targets: &Tensor) -> (f64, Option<f64>) {
    let mut graph = Graph::new("loss");
    let x = graph.input("x", DType::F32, Shape::known(outputs.shape()));
    let attached = loss(text).attach(&mut graph, &[x]).unwrap();
    graph.output(attached.loss);
    attached.weight.into_iter().for_each(|w| graph.output(w));
    let port = &attached.ports[0].input;
    let feeds = BTreeMap::from([("x".to_string(), outputs.clone()), (port.clone(), targets.clone())]);
    let found = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
    (found[0].to_f64()[0], found.get(1).map(|w| w.to_f64()[0]))
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "{found}, expected {expected}");
}

#[test]
fn every_loss_is_what_its_formula_says() {
    let x = Tensor::f32([2, 3], vec![0.5, -1.0, 2.0, 1.0, 0.0, -0.5]);
    let t = Tensor::f32([2, 3], vec![1.0, 0.0, 0.5, 0.0, 1.0, 1.0]);
    let xs = x.to_f64().into_owned();
    let ts = t.to_f64().into_owned();
    let mean = |f: &dyn Fn(f64, f64) -> f64| xs.iter().zip(&ts).map(|(&x, &t)| f(x, t)).sum::<f64>() / 6.0;
    close(value("mse", &x, &t).0, mean(&|x, t| (x - t) * (x - t)));
    close(value("mae", &x, &t).0, mean(&|x, t| (x - t).abs()));
    let huber = |x: f64, t: f64| {
        let d = (x - t).abs();
        if d < 0.7 { d * d / 2.0 } else { 0.7 * (d - 0.35) }
    };
    close(value("huber:delta=0.7", &x, &t).0, mean(&huber));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let binary = |x: f64, t: f64| -(t * sigmoid(x).ln() + (1.0 - t) * (1.0 - sigmoid(x)).ln());
    close(value("bce", &x, &t).0, mean(&binary));
    let labels = Tensor::ints(&[2, 0]);
    let nll = |row: &[f64], label: usize| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[label];
    let (first, second) = (nll(&xs[..3], 2), nll(&xs[3..], 0));
    close(value("cross-entropy", &x, &labels).0, (first + second) / 2.0);
    let ignoring = value("cross-entropy:ignore=0", &x, &labels);
    close(ignoring.0, first);
    assert_eq!(ignoring.1, Some(1.0));
    let weighted = value("cross-entropy:weights=1/2/0.5", &x, &labels);
    close(weighted.0, (0.5 * first + second) / 1.5);
    assert_eq!(weighted.1, Some(1.5));
    close(value("cross-entropy:weights=1/2/0.5,ignore=0", &x, &labels).1.unwrap(), 0.5);
}

#[test]
fn a_sum_adds_its_terms_and_shows_them() {
    let mut graph = Graph::new("loss");
    let x = graph.input("x", DType::F32, Shape::known(&[2, 2]));
    let sum = loss("mse + 0.5*mae:target=other");
    let attached = sum.attach(&mut graph, &[x]).unwrap();
    assert_eq!(sum.targets(), ["targets", "other"]);
    let names: Vec<&str> = attached.metrics.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["mse", "mae:target=other"]);
    graph.set_outputs([attached.loss].into_iter().chain(attached.metrics.iter().map(|m| m.1)).collect());
    let tensor = |v: [f32; 4]| Tensor::f32([2, 2], v.to_vec());
    let feeds = BTreeMap::from([
        ("x".to_string(), tensor([1.0, 2.0, 3.0, 4.0])),
        ("targets".to_string(), tensor([0.0, 0.0, 0.0, 0.0])),
        ("other".to_string(), tensor([1.0, 2.0, 3.0, 8.0])),
    ]);
    let found = interpret(&graph, &mut Parameters::new(), &feeds).unwrap();
    let found: Vec<f64> = found.iter().map(|t| t.to_f64()[0]).collect();
    assert_eq!(found, [7.5 + 0.5, 7.5, 1.0]);
}

#[test]
fn classes_lie_on_any_axis() {
    // The same scores with the classes on axis 1, in the middle and at the end.
    let scores = Example::noise(&[2, 4, 3, 2], 5);
    let labels: Vec<i64> = (0..12).map(|i| i % 4).collect();
    let moved = |permutation: &[usize]| {
        let mut graph = Graph::new("moved");
        let x = graph.input("x", DType::F32, Shape::known(&[2, 4, 3, 2]));
        let y = graph.apply(Transpose { permutation: permutation.to_vec() }, &[x]).unwrap();
        graph.output(y);
        let feeds = BTreeMap::from([("x".to_string(), scores.clone())]);
        interpret(&graph, &mut Parameters::new(), &feeds).unwrap().remove(0)
    };

    let labels = Tensor::i64([2, 3, 2], labels);
    let expected = value("cross-entropy", &scores, &labels).0;
    close(value("cross-entropy:axis=2", &moved(&[0, 2, 1, 3]), &labels).0, expected);
    close(value("cross-entropy:axis=-1", &moved(&[0, 2, 3, 1]), &labels).0, expected);
}

#[test]
fn tokens_have_their_classes_last_and_pixels_second() {
    let tokens =
        value("cross-entropy", &Tensor::zeros(DType::F32, [2, 5, 7]), &Tensor::zeros(DType::I64, [2, 5]));
    close(tokens.0, 7f64.ln());
    let pixels = value(
        "cross-entropy",
        &Tensor::zeros(DType::F32, [2, 5, 3, 3]),
        &Tensor::zeros(DType::I64, [2, 3, 3]),
    );
    close(pixels.0, 5f64.ln());
}

#[test]
fn a_softmax_or_a_sigmoid_at_the_end_is_taken_off() {
    for (text, op) in [
        ("cross-entropy", Op::from(Softmax { axis: -1, log: false })),
        ("bce", Op::from(Unary { function: Function::Sigmoid })),
    ] {
        let mut graph = Graph::new("net");
        let x = graph.input("x", DType::F32, Shape::known(&[2, 3]));
        let y = graph.apply(op, &[x]).unwrap();
        let attached = loss(text).attach(&mut graph, &[y]).unwrap();
        assert_eq!(attached.judged.unwrap().output, x, "{text}");
    }
}

#[test]
fn a_target_may_be_named_like_an_input() {
    let mut graph = Graph::new("autoencoder");
    let x = graph.input("x", DType::F32, Shape::known(&[2, 3]));
    let attached = loss("mse:target=x").attach(&mut graph, &[x]).unwrap();
    assert_eq!(attached.ports, [Port { input: "target:x".into(), column: "x".into() }]);
}

#[test]
fn texts_survive_a_round_trip() {
    for text in [
        "cross-entropy",
        "cross-entropy:smoothing=0.1,ignore=-100,axis=1,weights=1/2/0.5,output=y,target=label",
        "bce",
        "mse",
        "mae:target=price",
        "huber",
        "huber:delta=0.5",
        "output:loss",
        "distil:t=4",
        "distil:t=4,match=a/b;c/d,matched=0.1,axis=1",
        "cross-entropy + 0.5*mse:output=boxes,target=boxes",
        "2*mse",
    ] {
        assert_eq!(loss(text).to_string(), text);
        let json = serde_json::to_string(&loss(text)).unwrap();
        assert_eq!(serde_json::from_str::<Loss>(&json).unwrap(), loss(text));
    }
    assert_eq!(loss("huber:delta=1").to_string(), "huber");
}

#[test]
fn nonsense_is_refused_with_what_would_do() {
    for (text, part) in [
        ("", "not a loss"),
        ("cross_entropy", "cross-entropy"),
        ("cross-entropy:smoothing=2", "0 to 1"),
        ("cross-entropy:axis=0", "batch"),
        ("cross-entropy:weights=1/x", "1/2/0.5"),
        ("cross-entropy:ignored=1", "`ignored` is not known"),
        ("mse:delta=1", "`delta` is not known"),
        ("huber:delta=0", "above 0"),
        ("output:", "output:NAME"),
        ("distil:t=0", "above 0"),
        ("distil:match=a", "STUDENT/TEACHER"),
        ("0*mse", "above 0"),
        ("mse + ", "not a loss"),
        ("mse:target=a,target=b", "twice"),
    ] {
        let error = text.parse::<Loss>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn outputs_that_are_not_judged_so_are_named() {
    let mut graph = Graph::new("net");
    let x = graph.input("scores", DType::F32, Shape::known(&[2]));
    for (text, part) in [
        ("cross-entropy", "`scores` is f32[2]"),
        ("mse:output=y", "no output `y`; the outputs are: scores"),
        ("distil", "no teacher"),
    ] {
        let error = loss(text).attach(&mut graph, &[x]).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let y = graph.input("y", DType::F32, Shape::known(&[2, 3]));
    let error = loss("cross-entropy:weights=1/2").attach(&mut graph, &[y]).unwrap_err().to_string();
    assert!(error.contains("2 weights are given for 3 classes"), "{error}");
    let z = graph.input("z", DType::I64, Shape::known(&[2]));
    assert!(loss("mse").attach(&mut graph, &[z]).is_err());
}

/// A linear network of 3 inputs and 2 classes.
fn linear(weights: [f32; 6]) -> Model {
    let mut graph = Graph::new("linear");
    let mut parameters = Parameters::new();
    let x = graph.input("x", DType::F32, vec![Dim::symbol("N"), 3.into()]);
    parameters.insert("w", Tensor::f32([3, 2], weights.to_vec()));
    let w = graph.parameter(Parameter::trainable("w"), DType::F32, &[3, 2]);
    let y = graph.apply(MatMul::default(), &[x, w]).unwrap();
    graph.rename(y, "logits");
    graph.output(y);
    Model::new(graph, parameters)
}

#[test]
fn a_student_is_pulled_to_its_teachers_answers() {
    let teacher = Arc::new(linear([1.0, -1.0, 0.5, 0.0, -0.5, 2.0]));
    let student = linear([0.0, 0.1, -0.2, 0.3, 0.2, 0.0]);
    let x = Example::noise(&[4, 3], 3);
    let (t, weights) = (3.0, student.parameters.get("w").unwrap().to_f64().into_owned());
    // The formula, plainly.
    let logits = |w: &[f64]| -> Vec<[f64; 2]> {
        let xs = x.to_f64();
        let row = |n: usize| [0, 1].map(|c| (0..3).map(|i| xs[n * 3 + i] * w[i * 2 + c]).sum::<f64>() / t);
        (0..4).map(row).collect()
    };
    let log_softmax = |z: [f64; 2]| z.map(|x| x - (z[0].exp() + z[1].exp()).ln());
    let of = |w: &[f64]| {
        let theirs = logits(&teacher.parameters.get("w").unwrap().to_f64());
        let each = theirs.into_iter().zip(logits(w)).map(|(a, b)| {
            let (a, b) = (log_softmax(a), log_softmax(b));
            (0..2).map(|c| a[c].exp() * (a[c] - b[c])).sum::<f64>()
        });
        t * t * each.sum::<f64>() / 4.0
    };
    let bound = bind_inputs(&student.graph, &[("x".into(), vec![4, 3])]).unwrap();
    let mut graph = bound.clone();
    let outputs = graph.outputs().to_vec();
    let objective = loss("distil:t=3").taught_by(&teacher);
    let attached = objective.attach(&mut graph, &outputs).unwrap();
    let w = graph.parameters().find(|&p| graph.label(p) == "w").unwrap();
    assert_eq!(graph.parameters().count(), 1, "the teacher has no parameters left to train");
    let d = differentiate(&graph, attached.loss, &[w]).unwrap();
    let mut step = d.graph.clone();
    step.set_outputs(vec![attached.loss, d.gradients[0].unwrap()]);
    let feeds = BTreeMap::from([("x".to_string(), x.clone())]);
    let found = interpret(&step, &mut student.parameters.clone(), &feeds).unwrap();
    close(found[0].to_f64()[0], of(&weights));
    for (i, slope) in found[1].to_f64().iter().enumerate() {
        let moved = |by: f64| {
            let mut w = weights.clone();
            w[i] += by;
            of(&w)
        };
        let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((slope - expected).abs() < 1e-5, "{slope} {expected}");
    }
    // Another teacher is another objective.
    let other = loss("distil:t=3").taught_by(&Arc::new(linear([0.0; 6])));
    assert_ne!(objective, other);
}

#[test]
fn a_losss_own_output_may_be_one_number_or_one_a_sample() {
    let mut graph = Graph::new("net");
    let each = graph.input("each", DType::F32, Shape::known(&[3]));
    let attached = loss("output:each").attach(&mut graph, &[each]).unwrap();
    assert_eq!(graph.extents(attached.loss).unwrap(), Vec::<usize>::new());
    let one = graph.input("one", DType::F32, Shape::known(&[]));
    assert_eq!(loss("output:one").attach(&mut graph, &[each, one]).unwrap().loss, one);
    let table = graph.input("table", DType::F32, Shape::known(&[3, 4]));
    let error = loss("output:table").attach(&mut graph, &[table]).unwrap_err().to_string();
    assert!(error.contains("one for each sample"), "{error}");
}
