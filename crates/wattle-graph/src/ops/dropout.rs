//! Dropout: a random part of the elements becomes zero, by a function of seed, step and position alone.

use super::concrete::result_shapes;
use super::*;
use crate::tensor::DType;

/// `(x, seed [] i64, step [] i64 or float) -> y`: each element is 0 with probability `ratio`, else `x / (1 - ratio)`
/// (Srivastava et al. 2014, section 10, "inverted").
///
/// What is dropped is where [`Random`] of the kind `Bernoulli { probability: ratio }` draws 1 for the same seed, stream and
/// step: a pure function of these and of the position, the same for any number of threads, and repeated by the gradient
/// without saving a mask. ONNX nodes in training mode import as this operator, those in inference mode as Identity, and it
/// exports as a node in inference mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of an element to become zero, in 0..1.
    pub ratio: f32,
    /// Names the stream of random numbers; a different one for each Dropout of a graph.
    pub stream: u64,
}

impl Dropout {
    /// The key of the generator for this node's stream of a seed.
    pub fn key(&self, seed: i64) -> u64 {
        philox::key(seed, self.stream)
    }

    /// A node of a file that drops. Like every imported operator that draws, its seed and step are constant until
    /// [`crate::rewrite::random_inputs`] makes inputs of them.
    fn in_training(node: &mut ForeignNode<'_>, ratio: f32) -> Result<Vec<ValueId>, ImportError> {
        if node.wants_output(1) {
            return Err(node.refuse(
                "training_mode = true and its mask is read; export the model in evaluation mode, or without the mask",
            ));
        }
        let before = node.graph().nodes().iter().filter(|n| matches!(n.op, Op::Dropout(_))).count();
        let x = node.input(0)?;
        let zero = node.constant(Tensor::i64([], vec![0]));
        Ok(vec![node.apply(Dropout { ratio, stream: before as u64 }, &[x, zero, zero])?])
    }

    /// Elements whose top 24 random bits are below this are dropped.
    pub fn threshold(&self) -> u32 {
        RandomKind::threshold(self.ratio)
    }
}

impl Operator for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("ratio", Attribute::Float(self.ratio)), ("stream", Attribute::Int(self.stream as i64))]
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        inputs.expect_float(0, "x")?;
        random::expect_counters(inputs, 1)?;
        if !(0.0..1.0).contains(&self.ratio) {
            return Err(OpError::mismatch("ratio", self.ratio, "at least 0 and less than 1"));
        }
        Ok(vec![inputs.ty(0, "x")?.clone()])
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        result_shapes(self, inputs)?;
        let x = inputs.get(0)?;
        let dropped = random::draws(
            RandomKind::Bernoulli { probability: self.ratio },
            random::counters(inputs, 1, self.stream)?,
            x.len(),
        );
        let scale = 1.0 / (1.0 - f64::from(self.ratio));
        let y = x.to_f64().iter().zip(dropped).map(|(v, d)| if d == 0.0 { v * scale } else { 0.0 }).collect();
        Ok(vec![Tensor::from_f64(x.dtype(), x.shape(), y)])
    }

    fn gradient(&self, g: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        let operands = [g.gradient(), g.input(1), g.input(2)];
        Ok(Gradient::Inputs(vec![Some(g.apply(self.clone(), &operands)?), None, None]))
    }

    fn work(&self, shapes: &Shapes<'_>) -> Work {
        // The generator as in Random, then a comparison and a product.
        Work::elementwise(10 * shapes.output_len(0))
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        let ratio = node.constant(Tensor::scalar(self.ratio));
        node.emit_final("Dropout", &[node.input(0), ratio], vec![]);
        Ok(())
    }
}

impl Described for Dropout {
    const ONNX: &'static [&'static str] = &["Dropout"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        // A seed only matters in training; the ratio as an attribute is older than training mode.
        node.attribute("seed");
        node.attribute("ratio");
        let training = node.constant_input(2)?.is_some_and(|t| t.to_i64().first() == Some(&1));
        let ratio = match training {
            true => node.constant_input(1)?.and_then(|t| t.to_f64().first().copied()).unwrap_or(0.5),
            false => 0.0,
        };
        if ratio != 0.0 {
            return Dropout::in_training(node, ratio as f32);
        }
        let x = node.input(0)?;
        let mut results = vec![node.apply(Identity, &[x])?];
        if node.wants_output(1) {
            let shape = node.graph().value(x).ty.shape.clone();
            let extents = shape.extents().filter(|e| e.iter().product::<usize>() <= 1 << 28);
            let Some(extents) = extents else {
                return Err(node.refuse(format!("the mask of an operand of shape {shape}; it must be known")));
            };
            let kept = Tensor::from_i64(DType::Bool, extents.clone(), vec![1; extents.iter().product()]);
            results.push(node.constant(kept));
        }
        Ok(results)
    }

    fn examples() -> Vec<Example> {
        let of = |ratio, step| {
            let operands = vec![Example::noise(&[4, 5], 1), Tensor::i64([], vec![3]), Tensor::i64([], vec![step])];
            Example::new(Dropout { ratio, stream: 7 }, operands)
        };
        vec![of(0.5, 0), of(0.1, -3), of(0.0, 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(step: i64) -> Vec<bool> {
        let op = Dropout { ratio: 0.25, stream: 1 };
        let operands = [Tensor::f32([20_000], vec![1.0; 20_000]), Tensor::i64([], vec![1]), Tensor::i64([], vec![step])];
        let y = op.evaluate(Tensors::new(&operands.each_ref().map(Some))).unwrap();
        y[0].to_f64().iter().map(|y| *y > 0.0).collect()
    }

    #[test]
    fn the_stated_fraction_is_dropped_and_steps_differ() {
        let (a, b) = (kept(0), kept(1));
        let fraction = |v: &[bool]| v.iter().filter(|k| **k).count() as f64 / v.len() as f64;
        // Four standard deviations of 20000 trials.
        assert!((fraction(&a) - 0.75).abs() < 0.0123 && (fraction(&b) - 0.75).abs() < 0.0123);
        let both: Vec<bool> = a.iter().zip(&b).map(|(x, y)| *x && *y).collect();
        assert!((fraction(&both) - 0.5625).abs() < 0.0141);
    }

    fn imported(graph: &mut crate::Graph, outputs: &[&str]) -> Result<Vec<ValueId>, ImportError> {
        let x = graph.input("x", DType::F32, crate::Shape::known(&[4, 5]));
        let ratio = graph.constant(Tensor::scalar(0.25f32));
        let training = graph.constant(Tensor::from_i64(DType::Bool, [], vec![1]));
        let inputs = vec![Some(x), Some(ratio), Some(training)];
        let outputs = outputs.iter().map(|name| name.to_string()).collect();
        let mut node =
            ForeignNode::new(graph, "Dropout", "d", 13, inputs, outputs, Default::default(), Default::default());
        Dropout::import(&mut node)
    }

    #[test]
    fn a_node_in_training_mode_drops_until_it_is_put_in_inference_mode() {
        let mut graph = crate::Graph::new("exported for training");
        let y = imported(&mut graph, &["y"]).unwrap()[0];
        graph.output(y);
        assert_eq!(graph.nodes()[0].op, Op::Dropout(Dropout { ratio: 0.25, stream: 0 }));
        let after = crate::rewrite::in_inference_mode(&graph).unwrap();
        assert!(matches!(after.nodes()[0].op, Op::Identity(_)), "{after}");
        let error = imported(&mut crate::Graph::new("mask"), &["y", "mask"]).unwrap_err().to_string();
        assert!(error.contains("without the mask"), "{error}");
    }

    #[test]
    fn the_gradient_passes_where_the_value_did() {
        let example = &Dropout::examples()[0];
        let op = example.op.clone();
        let operands: Vec<_> = example.inputs.iter().map(Option::as_ref).collect();
        let y = op.evaluate(Tensors::new(&operands)).unwrap();
        let mut graph = crate::Graph::new("dropout");
        let x = graph.input("x", DType::F32, crate::Shape::known(&[4, 5]));
        let counters = [1, 2].map(|i| graph.constant(example.inputs[i].clone().unwrap()));
        let dropped = graph.apply(op, &[x, counters[0], counters[1]]).unwrap();
        let loss = graph.apply(SumTo { shape: vec![] }, &[dropped]).unwrap();
        let mut d = crate::differentiate(&graph, loss, &[x]).unwrap();
        d.graph.output(d.gradients[0].unwrap());
        let feeds = [("x".to_string(), example.inputs[0].clone().unwrap())].into();
        let gradient = crate::interpret(&d.graph, &mut Default::default(), &feeds).unwrap();
        for (y, g) in y[0].to_f64().iter().zip(gradient[0].to_f64().iter()) {
            assert_eq!(*y == 0.0, *g == 0.0);
        }
    }
}
