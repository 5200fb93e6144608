//! What `train`, `shrink` and `ticket find` say of a model that will not learn as its owner may think.

use wattle_graph::ops::{Binary, BinaryFunction, Conv, CumSum, Flatten, MatMul, Sliding, Transpose, Unary};
use wattle_graph::{DType, Dim, Example, Graph, Model, Parameter, Parameters, Tensor, ValueId};

use crate::sandbox::Sandbox;

/// A classifier of digits with everything that should be said: nine convolutions without normalisation, a mask, a step
/// that only the interpreter runs, a weight that is shared, one that nothing depends on, and a head that stays at zero.
fn odd(sandbox: &Sandbox) {
    let mut graph = Graph::new("odd");
    let mut parameters = Parameters::new();
    let mut weight = |graph: &mut Graph, name: &str, tensor: Tensor| -> ValueId {
        let id = graph.parameter(Parameter::trainable(name), DType::F32, tensor.shape());
        parameters.insert(name, tensor);
        id
    };
    let mut x = graph.input("x", DType::F32, vec![Dim::symbol("N"), 1.into(), 8.into(), 8.into()]);
    for layer in 0..9 {
        let w = weight(&mut graph, &format!("conv{layer}"), Example::noise(&[1, 1, 3, 3], layer + 1));
        x = graph.apply(Conv { sliding: Sliding::padded(2, 1), groups: 1 }, &[x, w]).expect("it fits");
    }
    let mut x = graph.apply(Flatten { axis: 1 }, &[x]).expect("an image");
    let half = (0..64).map(|i| (i % 2) as f32).collect();
    let mask = graph.named_constant("mask", Tensor::f32([64], half));
    x = graph.apply(Binary { function: BinaryFunction::Mul }, &[x, mask]).expect("it fits");
    x = graph.apply(CumSum { axis: 1, exclusive: false, reverse: false }, &[x]).expect("a row");
    let tied = weight(&mut graph, "tied", Example::noise(&[64, 64], 20));
    x = graph.apply(MatMul::default(), &[x, tied]).expect("it fits");
    let turned = graph.apply(Transpose { permutation: vec![1, 0] }, &[tied]).expect("a matrix");
    x = graph.apply(MatMul::default(), &[x, turned]).expect("it fits");
    let head = weight(&mut graph, "head", Tensor::f32([64, 10], vec![0.0; 640]));
    let y = graph.apply(MatMul::default(), &[x, head]).expect("it fits");
    let aside = weight(&mut graph, "aside", Example::noise(&[64, 2], 21));
    let other = graph.apply(MatMul::default(), &[x, aside]).expect("it fits");
    let other =
        graph.apply(Unary { function: wattle_graph::ops::Function::Tanh }, &[other]).expect("a float");
    for (id, name) in [(y, "y"), (other, "other")] {
        graph.rename(id, name);
        graph.output(id);
    }
    sandbox.model("odd.onnx", &Model::new(graph, parameters));
}

#[test]
fn every_command_that_trains_says_what_is_odd_about_a_model() {
    let sandbox = Sandbox::new();
    odd(&sandbox);
    let options = "--model odd.onnx --epochs 1 --batch 400 --freeze head --out";
    for (command, rest) in [("train", ""), ("shrink", "--max-rounds 0"), ("ticket find", "--levels 0")] {
        let out = command.replace(' ', "-");
        let document = sandbox.json(&format!("{command} {options} {out} {rest}"));
        let notes = document["notes"].to_string();
        for said in [
            "None of the 9 convolutions is followed by a normalisation",
            "`mask` is not trained: a mask: it multiplies by 0 or 1",
            "`tied` (4096) is trained as one tensor for",
            "1 parameter gets no gradient and stays as it is: aside",
            "steps run on the interpreter, slowly:",
            "is no better than always answering the most frequent class",
        ] {
            assert!(notes.contains(said), "{command} does not say `{said}`: {notes}");
        }
        // Also where everything was done before, and for people.
        let text = sandbox.text(&format!("{command} {options} {out} {rest}"));
        for said in ["note: None of the 9", "note: `mask`", "note: `tied`", "slowly:"] {
            assert!(text.contains(said), "{command} does not print `{said}`: {text}");
        }
    }
}
