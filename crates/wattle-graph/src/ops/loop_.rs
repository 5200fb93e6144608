//! Loop: a graph that runs a fixed number of times, each time on what it left.

use std::collections::BTreeMap;
use std::ops::Range;

use super::nested::{merged, output_types};
use super::*;
use crate::graph::Graph;
use crate::interpret::interpret;
use crate::parameter::Parameters;
use crate::rewrite;
use crate::shape::{Dim, Shape};
use crate::splice::may_be;
use crate::tensor::DType;

/// `Loop(carried.., captures..) -> (carried.., scanned..)`: runs the body `trips` times.
///
/// The inputs of the body are the trip's number (i64 scalar, from 0), the carried values, and captures: values of the enclosing
/// graph, the same in every trip. Its outputs are the next carried values and what is scanned, which is stacked along a new
/// first axis, one entry a trip. ONNX loops whose number of trips is not constant, or that a condition may end, are refused
/// when they are imported.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// What runs in each trip.
    pub body: Box<Graph>,
    /// How often it runs.
    pub trips: usize,
    /// Number of carried values.
    pub carried: usize,
}

/// More trips than any network has; a hostile file must not keep us busy for ever.
const MAX_TRIPS: usize = 1 << 20;

impl Loop {
    /// Which operands are captures of the body; its inputs after the carried ones stand for them.
    pub fn captures(&self) -> Range<usize> {
        self.carried..(self.body.inputs().len().saturating_sub(1)).max(self.carried)
    }

    /// The body as it is on these operands, all types inferred again and all that is constant folded. Captures that are
    /// constant are no inputs any more; the others keep their names and order.
    ///
    /// # Errors
    /// When the operands do not fit what the body declares, or an operator in it refuses them.
    pub fn specialised(&self, inputs: Operands<'_>) -> Result<Graph, OpError> {
        let number = TensorType::new(DType::I64, Shape::known(&[]));
        let mut carried = vec![];
        for index in 0..self.carried {
            carried.push(inputs.ty(index, "carried")?);
        }
        let operands = self.operands(&number, carried.into_iter(), inputs)?;
        rewrite::specialised(&self.body, &operands).map_err(refused)
    }

    /// What the inputs of the body are; carried values are no constants, whatever they start from.
    fn operands<'a>(
        &self,
        number: &'a TensorType,
        carried: impl Iterator<Item = &'a TensorType>,
        inputs: Operands<'a>,
    ) -> Result<Vec<Option<Operand<'a>>>, OpError> {
        let varying = std::iter::once(number).chain(carried);
        let mut operands: Vec<_> = varying.map(|ty| Some(Operand { ty, constant: None })).collect();
        for index in self.captures() {
            operands.push(Some(inputs.get(index, "capture")?));
        }
        for (&input, operand) in self.body.inputs().iter().zip(operands.iter().flatten()) {
            let declared = &self.body.value(input).ty;
            if !may_be(operand.ty, declared) {
                return Err(OpError::mismatch("operand", operand, format!("{declared}, as the body declares")));
            }
        }
        Ok(operands)
    }

    /// Types of the body's outputs when it runs on operands of these types, extents of carried values that a trip changes
    /// being symbols.
    fn body_types(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let number = TensorType::new(DType::I64, Shape::known(&[]));
        let mut carried = vec![];
        for index in 0..self.carried {
            carried.push(inputs.ty(index, "carried")?.clone());
        }
        // What the first trip changes may change in any trip; then only what no trip knows is left.
        for round in 0..3 {
            let operands = self.operands(&number, carried.iter(), inputs)?;
            let body = rewrite::retyped(&self.body, &operands).map_err(refused)?;
            let types = output_types(&body);
            if types[..self.carried] == carried[..] {
                return Ok(types);
            }
            for (carried, next) in carried.iter_mut().zip(&types) {
                let common = merged(carried, next)?;
                *carried = if round == 0 || common == *carried { common } else { TensorType::new(common.dtype, Shape::Unknown) };
            }
        }
        Err(OpError::mismatch("carried values", "shapes that change in every trip", "shapes that settle"))
    }
}

fn refused(cause: GraphError) -> OpError {
    OpError::mismatch("body", cause, "a body that fits its operands")
}

impl Operator for Loop {
    fn name(&self) -> &'static str {
        "Loop"
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let numbers = [("trips", self.trips), ("carried", self.carried)];
        let numbers = numbers.map(|(name, n)| (name, Attribute::Int(n as i64)));
        [("body", Attribute::Graph(self.body.clone()))].into_iter().chain(numbers).collect()
    }

    fn infer(&self, inputs: Operands<'_>) -> Result<Vec<TensorType>, OpError> {
        let (ins, outs) = (self.body.inputs().len(), self.body.outputs().len());
        if ins != 1 + inputs.len() || self.carried > inputs.len() || self.carried > outs {
            let found = format!("{} for a body of {ins} inputs and {outs} outputs", inputs.len());
            return Err(OpError::mismatch("operands", found, "one for each input but the trip's number"));
        }
        if self.trips > MAX_TRIPS {
            return Err(OpError::mismatch("trips", self.trips, "at most 2^20"));
        }
        let mut types = self.body_types(inputs)?;
        for scanned in &mut types[self.carried..] {
            scanned.shape = match scanned.shape.dims() {
                None => Shape::Unknown,
                Some(dims) => Shape::Ranked([&[Dim::Known(self.trips)], dims].concat()),
            };
        }
        Ok(types)
    }

    fn evaluate(&self, inputs: Tensors<'_>) -> Result<Vec<Tensor>, OpError> {
        let names: Vec<&String> = self.body.inputs().iter().map(|&i| &self.body.value(i).name).collect();
        let mut feeds = BTreeMap::new();
        for (index, name) in names[1..].iter().enumerate() {
            feeds.insert((*name).clone(), inputs.get(index)?.clone());
        }
        let mut scanned: Vec<Vec<Tensor>> = vec![];
        for trip in 0..self.trips {
            feeds.insert(names[0].clone(), Tensor::i64([], vec![trip as i64]));
            let mut results = interpret(&self.body, &mut Parameters::new(), &feeds).map_err(refused)?.into_iter();
            for name in &names[1..=self.carried] {
                feeds.insert((*name).clone(), results.next().ok_or(OpError::Unbound("a carried value"))?);
            }
            scanned.push(results.collect());
        }
        let mut results = vec![];
        for name in &names[1..=self.carried] {
            results.extend(feeds.remove(*name));
        }
        let shapes = concrete::result_shapes(self, inputs);
        for index in self.carried..self.body.outputs().len() {
            let entries: Vec<&Tensor> = scanned.iter().map(|trip| &trip[index - self.carried]).collect();
            let dtype = self.body.value(self.body.outputs()[index]).ty.dtype;
            let Some(first) = entries.first() else {
                results.push(Tensor::zeros(dtype, shapes.clone()?[index].clone()));
                continue;
            };
            if let Some(other) = entries.iter().find(|e| e.shape() != first.shape()) {
                let found = format!("{:?} and {:?}", first.shape(), other.shape());
                return Err(OpError::mismatch("scanned shapes", found, "one shape in every trip"));
            }
            let shape = concrete::bounded([&[self.trips], first.shape()].concat())?;
            let all = entries.iter().flat_map(|e| e.to_f64().into_owned()).collect();
            // Integers beyond 2^53 are not floats.
            results.push(if dtype.is_float() {
                Tensor::from_f64(dtype, shape, all)
            } else {
                let all = entries.iter().flat_map(|e| e.to_i64().into_owned()).collect();
                Tensor::from_i64(dtype, shape, all)
            });
        }
        Ok(results)
    }

    fn gradient(&self, _: &mut Backward<'_>) -> Result<Gradient, GraphError> {
        Ok(Gradient::NotDifferentiable("what each trip computed is not kept"))
    }

    /// That of the body, for every trip.
    fn work(&self, shapes: &Shapes<'_>) -> Work {
        let inputs = self.body.inputs().iter().enumerate().map(|(index, &input)| {
            let extents: &[usize] = if index == 0 { &[] } else { shapes.input(index - 1) };
            TensorType::new(self.body.value(input).ty.dtype, Shape::known(extents))
        });
        let one = nested::counted(&self.body, &inputs.collect::<Vec<_>>()).1;
        let times = |n: u64| n.saturating_mul(self.trips as u64);
        Work {
            macs: times(one.macs),
            effective_macs: times(one.effective_macs),
            element_ops: times(one.element_ops),
            ..one
        }
    }

    fn export(&self, node: &mut ExportNode<'_>) -> Result<(), OpError> {
        // In ONNX a body reads the values of the enclosing graph by name, and returns whether it goes on.
        let mut body = Graph::new(self.body.name.clone());
        let number = body.input("trip", DType::I64, Shape::known(&[]));
        let goes_on = body.input("goes_on", DType::Bool, Shape::known(&[]));
        let mut feeds = vec![number];
        for (index, &input) in self.body.inputs().iter().enumerate().skip(1) {
            let ty = &self.body.value(input).ty;
            let carried = index <= self.carried;
            let name = if carried { format!("carried{index}") } else { node.input(index - 1) };
            feeds.push(body.input(name, ty.dtype, ty.shape.clone()));
        }
        let names: Vec<String> = self.body.inputs().iter().map(|&i| self.body.value(i).name.clone()).collect();
        let feeds: Vec<(&str, ValueId)> = names.iter().map(String::as_str).zip(feeds).collect();
        let failed = |e: GraphError| OpError::Unsupported(e.to_string());
        let spliced =
            body.splice(&self.body, &feeds, "body", crate::splice::TensorNames::Prefixed).map_err(failed)?;
        // An output that is an input needs a name of its own.
        for output in [goes_on].into_iter().chain(spliced.outputs) {
            let copy = body.apply(Identity, &[output]).map_err(failed)?;
            body.output(copy);
        }
        let trips = node.constant(Tensor::i64([], vec![self.trips as i64]));
        let mut operands = vec![trips, String::new()];
        operands.extend((0..self.carried).map(|i| node.input(i)));
        let formal = 2 + self.carried;
        node.emit_final("Loop", &operands, vec![("body", Attribute::Body(Box::new(body), formal))]);
        Ok(())
    }
}

impl Described for Loop {
    const ONNX: &'static [&'static str] = &["Loop"];

    fn import(node: &mut ForeignNode<'_>) -> Result<Vec<ValueId>, ImportError> {
        let (body, captures) = node.subgraph("body")?;
        let said = |node: &ForeignNode<'_>, index| {
            let id = node.optional_input(index);
            id.map(|id| node.graph().constant_of(id).map(|t| t.to_i64().first().copied().unwrap_or_default()))
        };
        let trips = match said(node, 0) {
            Some(Some(trips)) => usize::try_from(trips).unwrap_or(0),
            Some(None) => return Err(node.refuse("a number of trips that is known only when it runs; it must be constant")),
            None => return Err(node.refuse("no number of trips: only a condition ends it")),
        };
        match said(node, 1) {
            None | Some(Some(1)) => {}
            Some(Some(_)) => return Err(node.refuse("a condition that never holds")),
            Some(None) => return Err(node.refuse("a condition that is known only when it runs; it must be constant")),
        }
        let carried = node.input_count().saturating_sub(2);
        let formal = body.inputs().len().saturating_sub(captures.len());
        if formal != 2 + carried || body.outputs().len() < 1 + carried {
            let found = format!("a body of {formal} inputs and {} outputs", body.outputs().len());
            return Err(node.refuse(format!("{found} for {carried} carried values")));
        }
        // The condition holds in every trip if it does where it held before.
        let holds = Tensor::from_i64(DType::Bool, [], vec![1]);
        let ty = TensorType::new(DType::Bool, Shape::known(&[]));
        let goes_on = body.inputs()[1];
        let operand = |id| (id == goes_on).then_some(Operand { ty: &ty, constant: Some(&holds) });
        let operands: Vec<_> = body.inputs().iter().map(|&id| operand(id)).collect();
        let mut body = rewrite::retyped(&body, &operands)?;
        let last = body.constant_of(body.outputs()[0]).map(|t| t.to_i64().into_owned());
        if last.as_deref() != Some(&[1]) {
            return Err(node.refuse("a condition that its body computes; it must always hold"));
        }
        body.set_outputs(body.outputs()[1..].to_vec());
        let body = rewrite::remove_dead_code(&body)?;
        let mut operands = node.inputs().get(2..).unwrap_or_default().to_vec();
        if operands.contains(&None) {
            return Err(node.refuse("a carried value is missing"));
        }
        operands.extend(captures.into_iter().map(Some));
        node.apply_all(Loop { body: Box::new(body), trips, carried }, &operands)
    }

    fn examples() -> Vec<Example> {
        let Ok(op) = accumulate(3) else { return vec![] };
        let (x, w) = (Example::noise(&[2, 3], 1), Example::noise(&[3, 3], 2));
        vec![
            Example::new(op.clone(), vec![x.clone(), w.clone()]).macs(3 * 2 * 3 * 3),
            Example::new(Loop { trips: 0, ..op }, vec![x, w]).macs(0),
        ]
    }
}

/// A loop that carries `s`, from `s` to `s w + trip`, and scans `relu(s)`.
fn accumulate(trips: usize) -> Result<Loop, GraphError> {
    let mut body = Graph::new("body");
    let trip = body.input("trip", DType::I64, Shape::known(&[]));
    let s = body.input("s", DType::F32, vec![Dim::symbol("N"), 3.into()]);
    let w = body.input("w", DType::F32, Shape::known(&[3, 3]));
    let relu = body.apply(Unary { function: Function::Relu }, &[s])?;
    let product = body.apply(MatMul::default(), &[s, w])?;
    let trip = body.apply(Cast { to: DType::F32 }, &[trip])?;
    let next = body.apply(Binary { function: BinaryFunction::Add }, &[product, trip])?;
    body.set_outputs(vec![next, relu]);
    Ok(Loop { body: Box::new(body), trips, carried: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trip_sees_what_the_last_one_left() {
        let op = accumulate(2).unwrap();
        let (x, w) = (Tensor::f32([1, 3], vec![1.0, -2.0, 3.0]), Tensor::f32([3, 3], vec![0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0]));
        let results = op.evaluate(Tensors::new(&[Some(&x), Some(&w)])).unwrap();
        // s: [1 -2 3], then [-2 1 6] + 0, then [1 -2 12] + 1.
        assert_eq!(results[0].as_f32().unwrap(), [2.0, -1.0, 13.0]);
        assert_eq!(results[1].shape(), [2, 1, 3]);
        assert_eq!(results[1].as_f32().unwrap(), [1.0, 0.0, 3.0, 0.0, 1.0, 6.0]);
    }

    #[test]
    fn a_carried_value_that_grows_has_no_known_extent() {
        let mut body = Graph::new("grow");
        body.input("trip", DType::I64, Shape::known(&[]));
        let s = body.input("s", DType::F32, vec![Dim::symbol("N")]);
        let twice = body.apply(Concat { axis: 0 }, &[s, s]).unwrap();
        body.output(twice);
        let op = Loop { body: Box::new(body), trips: 3, carried: 1 };
        let x = Tensor::f32([1], vec![1.0]);
        assert_eq!(op.evaluate(Tensors::new(&[Some(&x)])).unwrap()[0].shape(), [8]);
        let ty = TensorType::new(DType::F32, Shape::known(&[1]));
        let types = op.infer(Operands::new(&[Some(Operand { ty: &ty, constant: None })])).unwrap();
        assert_eq!(types[0].shape.extents(), None);
    }
}
