//! What a network is: values, operators, shapes, ONNX in and out, differentiation, rewriting, cost.
//!
//! The central type is [`Graph`]: values, and nodes in topological order. Everything else is a function of it:
//! [`differentiate`] extends it by gradients, [`interpret`] runs it slowly and defines what it means.
//! This crate does not run graphs fast, train them or know about files other than ONNX.
//!
//! ```
//! use wattle_graph::ops::{Function, MatMul, Unary};
//! use wattle_graph::{DType, Dim, Graph, Shape};
//!
//! let mut graph = Graph::new("layer");
//! let x = graph.input("x", DType::F32, vec![Dim::symbol("N"), Dim::Known(3)]);
//! let w = graph.input("w", DType::F32, Shape::known(&[3, 2]));
//! let product = graph.apply(MatMul::default(), &[x, w])?;
//! let y = graph.apply(Unary { function: Function::Relu }, &[product])?;
//! graph.output(y);
//! assert_eq!(graph.value(y).ty.to_string(), "f32[N, 2]");
//! # Ok::<(), wattle_graph::GraphError>(())
//! ```

mod compact;
mod cost;
mod custom;
mod differentiate;
mod error;
mod fact;
mod fingerprint;
mod graph;
mod interpret;
pub mod layers;
mod mask;
mod model;
pub mod networks;
pub mod onnx;
mod operator;
pub mod ops;
mod parameter;
pub mod rewrite;
mod shape;
mod splice;
pub mod suite;
mod tensor;
mod windows;

pub use compact::{Compact, CompactError, Index};
pub use cost::{NodeCost, Totals, costs, totals};
pub use custom::{CustomOperator, OnnxForm};
pub use differentiate::{Differentiated, differentiate};
pub use error::{GraphError, OpError};
pub use fact::{Fact, training_facts};
pub use fingerprint::Fingerprint;
pub use graph::{Assignment, Graph, Node, NodeId, Source, TensorType, Value, ValueId};
pub use interpret::interpret;
pub use mask::Mask;
pub use model::Model;
pub use operator::{
    Agreement, Attribute, Backward, Described, Example, Gradient, MacKind, Operand, Operands, Operator,
    Shapes, Tensors, Work, axis_of,
};
pub use ops::Op;
pub use parameter::{AxisWindow, Parameter, Parameters, Role, Window};
pub use shape::{Dim, Shape, broadcast, normalize_axis};
pub use splice::{Spliced, TensorNames};
pub use tensor::{DType, Data, Tensor, each_index, element_count, strides};
pub use windows::extract;
