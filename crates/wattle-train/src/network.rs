//! Networks by name: the ones that lottery-ticket papers train, and a small one for digits.

use wattle_graph::ops::{
    BatchNormalization, Binary, BinaryFunction, Conv, Flatten, Function, Gemm, GlobalPool, Pool, PoolKind,
    Sliding, Unary,
};
use wattle_graph::{DType, Dim, Graph, GraphError, Model, Parameter, Parameters, Tensor, ValueId};

use wattle_data::SampleShape;
use wattle_data::error::{Error, Result};
use wattle_data::random::{Purpose, Stream};

/// Names and what they stand for.
pub const NETWORKS: &[(&str, &str)] = &[
    ("lenet-300-100", "two hidden layers of 300 and 100 (LeCun et al. 1998)"),
    (
        "lenet-5",
        "two convolutions of 6 and 16, three dense layers (LeCun et al. 1998), with ReLU and max pooling",
    ),
    ("resnet-20", "20 layers of 16, 32 and 64 channels (He et al. 2016, section 4.2)"),
    ("resnet-18", "18 layers of 64 to 512 channels for large images (He et al. 2016, table 1)"),
    ("small-conv", "two convolutions of 16 and 32, one dense layer"),
];

/// How weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Normal with variance `2 / (fan_in + fan_out)` (Glorot & Bengio 2010, equation 12).
    GlorotNormal,
    /// Normal with variance `2 / fan_in` (He et al. 2015, equation 10).
    KaimingNormal,
}

/// The named network for samples of this shape and this many outputs, freshly initialised by `seed`.
pub fn build(name: &str, sample: &SampleShape, outputs: usize, init: Init, seed: u64) -> Result<Model> {
    let mut builder = Builder { graph: Graph::new(name), parameters: Parameters::new(), init, seed };
    let logits = match name {
        "lenet-300-100" => builder.lenet_300_100(sample, outputs),
        "lenet-5" => builder.images(sample, name)?.lenet_5(sample, outputs),
        "resnet-20" => builder.images(sample, name)?.resnet_20(sample, outputs),
        "resnet-18" => builder.images(sample, name)?.resnet_18(sample, outputs),
        "small-conv" => builder.images(sample, name)?.small_conv(sample, outputs),
        _ => {
            let names: Vec<_> = NETWORKS.iter().map(|(n, _)| *n).collect();
            return Err(Error::input(
                "option `model`",
                format_args!("`{name}` is neither a file nor a network"),
            )
            .expected(format_args!("an .onnx file or one of: {}", names.join(", "))));
        }
    };
    let logits = logits
        .map_err(|e| Error::input(format_args!("network {name} on samples of {:?}", sample.dims()), e))?;
    builder.graph.rename(logits, "logits");
    builder.graph.output(logits);
    Ok(Model::new(builder.graph, builder.parameters))
}

struct Builder {
    graph: Graph,
    parameters: Parameters,
    init: Init,
    seed: u64,
}

type Built = std::result::Result<ValueId, GraphError>;

impl Builder {
    /// Refuses samples that are not images.
    fn images(&mut self, sample: &SampleShape, name: &str) -> Result<&mut Builder> {
        if sample.dims().len() == 3 {
            return Ok(self);
        }
        let found = format!("{name} takes images; the samples are rows of {} numbers", sample.elements());
        Err(Error::input("option `model`", found).remedy("use lenet-300-100 for rows"))
    }

    fn input(&mut self, dims: &[usize]) -> ValueId {
        let mut shape = vec![Dim::symbol("N")];
        shape.extend(dims.iter().map(|&n| Dim::Known(n)));
        self.graph.input("x", DType::F32, shape)
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let taps: usize = shape[2..].iter().product();
        let (fan_out, fan_in) = ((shape[0] * taps) as f64, (shape[1] * taps) as f64);
        let variance = match self.init {
            Init::GlorotNormal => 2.0 / (fan_in + fan_out),
            Init::KaimingNormal => 2.0 / fan_in,
        };
        // The position in the network names the stream, so that a layer's weights do not depend on the others.
        let index = self.parameters.iter().count() as u64;
        let mut stream = Stream::new(self.seed, Purpose::Init, &[index]);
        let count = shape.iter().product::<usize>();
        let values = (0..count).map(|_| (stream.normal() * variance.sqrt()) as f32).collect();
        self.parameter(Parameter::trainable(name), shape, values)
    }

    fn vector(&mut self, parameter: Parameter, len: usize, value: f32) -> ValueId {
        self.parameter(parameter, &[len], vec![value; len])
    }

    fn parameter(&mut self, parameter: Parameter, shape: &[usize], values: Vec<f32>) -> ValueId {
        self.parameters.insert(parameter.tensor.clone(), Tensor::f32(shape, values));
        self.graph.parameter(parameter, DType::F32, shape)
    }

    fn width(&self, x: ValueId) -> std::result::Result<usize, GraphError> {
        let dims = self.graph.value(x).ty.shape.dims().unwrap_or(&[]);
        dims.get(1)
            .and_then(Dim::known)
            .ok_or_else(|| GraphError::Invalid("the width of a layer is unknown".into()))
    }

    fn dense(&mut self, name: &str, x: ValueId, outputs: usize) -> Built {
        let inputs = self.width(x)?;
        let w = self.weight(&format!("{name}.weight"), &[outputs, inputs]);
        let b = self.vector(Parameter::trainable(format!("{name}.bias")), outputs, 0.0);
        let op = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
        Ok(self.graph.apply_all(op, &[Some(x), Some(w), Some(b)], name)?[0])
    }

    fn conv(
        &mut self,
        name: &str,
        x: ValueId,
        filters: usize,
        taps: usize,
        stride: usize,
        bias: bool,
    ) -> Built {
        let channels = self.width(x)?;
        let w = self.weight(&format!("{name}.weight"), &[filters, channels, taps, taps]);
        let b = bias.then(|| self.vector(Parameter::trainable(format!("{name}.bias")), filters, 0.0));
        let op = Conv { sliding: Sliding::strided(2, taps / 2, stride), groups: 1 };
        Ok(self.graph.apply_all(op, &[Some(x), Some(w), b], name)?[0])
    }

    fn batch_norm(&mut self, name: &str, x: ValueId) -> Built {
        let channels = self.width(x)?;
        let scale = self.vector(Parameter::trainable(format!("{name}.weight")), channels, 1.0);
        let bias = self.vector(Parameter::trainable(format!("{name}.bias")), channels, 0.0);
        let mean = self.vector(Parameter::state(format!("{name}.running_mean")), channels, 0.0);
        let variance = self.vector(Parameter::state(format!("{name}.running_var")), channels, 1.0);
        let op = BatchNormalization { epsilon: 1e-5, momentum: 0.9, training: false };
        let operands = [x, scale, bias, mean, variance].map(Some);
        Ok(self.graph.apply_all(op, &operands, name)?[0])
    }

    fn relu(&mut self, x: ValueId) -> Built {
        self.graph.apply(Unary { function: Function::Relu }, &[x])
    }

    fn max_pool(&mut self, x: ValueId) -> Built {
        self.graph.apply(Pool::new(PoolKind::Max, &[2, 2], Sliding::strided(2, 0, 2)), &[x])
    }

    fn lenet_300_100(&mut self, sample: &SampleShape, outputs: usize) -> Built {
        let mut x = self.input(&sample.dims());
        if sample.dims().len() > 1 {
            x = self.graph.apply(Flatten { axis: 1 }, &[x])?;
        }
        for (name, width) in [("fc1", 300), ("fc2", 100)] {
            x = self.dense(name, x, width)?;
            x = self.relu(x)?;
        }
        self.dense("fc", x, outputs)
    }

    fn lenet_5(&mut self, sample: &SampleShape, outputs: usize) -> Built {
        let mut x = self.input(&sample.dims());
        for (name, filters) in [("conv1", 6), ("conv2", 16)] {
            x = self.conv(name, x, filters, 5, 1, true)?;
            x = self.relu(x)?;
            x = self.max_pool(x)?;
        }
        x = self.graph.apply(Flatten { axis: 1 }, &[x])?;
        for (name, width) in [("fc1", 120), ("fc2", 84)] {
            x = self.dense(name, x, width)?;
            x = self.relu(x)?;
        }
        self.dense("fc", x, outputs)
    }

    fn small_conv(&mut self, sample: &SampleShape, outputs: usize) -> Built {
        let mut x = self.input(&sample.dims());
        for (name, filters) in [("conv1", 16), ("conv2", 32)] {
            x = self.conv(name, x, filters, 3, 1, true)?;
            x = self.relu(x)?;
        }
        x = self.max_pool(x)?;
        x = self.graph.apply(Flatten { axis: 1 }, &[x])?;
        x = self.dense("fc1", x, 64)?;
        x = self.relu(x)?;
        self.dense("fc", x, outputs)
    }

    fn resnet_20(&mut self, sample: &SampleShape, outputs: usize) -> Built {
        let mut x = self.input(&sample.dims());
        x = self.conv("conv", x, 16, 3, 1, false)?;
        x = self.batch_norm("bn", x)?;
        x = self.relu(x)?;
        for (stage, filters) in [16, 32, 64].into_iter().enumerate() {
            for block in 0..3 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                x = self.residual(&format!("blocks.{}", 3 * stage + block), x, filters, stride)?;
            }
        }
        x = self.graph.apply(GlobalPool { kind: PoolKind::Average }, &[x])?;
        x = self.graph.apply(Flatten { axis: 1 }, &[x])?;
        self.dense("fc", x, outputs)
    }

    fn resnet_18(&mut self, sample: &SampleShape, outputs: usize) -> Built {
        let mut x = self.input(&sample.dims());
        x = self.conv("conv", x, 64, 7, 2, false)?;
        x = self.batch_norm("bn", x)?;
        x = self.relu(x)?;
        let pool = Pool::new(PoolKind::Max, &[3, 3], Sliding::strided(2, 1, 2));
        x = self.graph.apply(pool, &[x])?;
        for (stage, filters) in [64, 128, 256, 512].into_iter().enumerate() {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                x = self.residual(&format!("blocks.{}", 2 * stage + block), x, filters, stride)?;
            }
        }
        x = self.graph.apply(GlobalPool { kind: PoolKind::Average }, &[x])?;
        x = self.graph.apply(Flatten { axis: 1 }, &[x])?;
        self.dense("fc", x, outputs)
    }

    /// Two convolutions and a shortcut; where the shape changes the shortcut is a 1x1 convolution (option B).
    fn residual(&mut self, name: &str, x: ValueId, filters: usize, stride: usize) -> Built {
        let mut y = self.conv(&format!("{name}.conv1"), x, filters, 3, stride, false)?;
        y = self.batch_norm(&format!("{name}.bn1"), y)?;
        y = self.relu(y)?;
        y = self.conv(&format!("{name}.conv2"), y, filters, 3, 1, false)?;
        y = self.batch_norm(&format!("{name}.bn2"), y)?;
        let shortcut = if stride != 1 || self.width(x)? != filters {
            let s = self.conv(&format!("{name}.shortcut.0"), x, filters, 1, stride, false)?;
            self.batch_norm(&format!("{name}.shortcut.1"), s)?
        } else {
            x
        };
        let sum = self.graph.apply(Binary { function: BinaryFunction::Add }, &[y, shortcut])?;
        self.relu(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_parameter_counts_are_met() {
        let image = |c, h, w| SampleShape::Image { channels: c, height: h, width: w };
        let count = |name: &str, sample: &SampleShape| -> usize {
            let model = build(name, sample, 10, Init::KaimingNormal, 0).unwrap();
            let trainable = |p: &ValueId| {
                model.graph.parameter_of(*p).is_some_and(|p| p.role == wattle_graph::Role::Trainable)
            };
            model
                .graph
                .parameters()
                .filter(trainable)
                .map(|p| model.graph.extents(p).unwrap().iter().product::<usize>())
                .sum()
        };
        // 784*300+300 + 300*100+100 + 100*10+10 (Frankle & Carbin 2019, figure 2: 266 K).
        assert_eq!(count("lenet-300-100", &image(1, 28, 28)), 266_610);
        // 0.27 M in He et al. 2016, table 6, with parameter-free shortcuts; ours add two 1x1 convolutions.
        // 11.69 M with 1000 classes (torchvision's model card), of which 513 000 are the last layer's.
        assert_eq!(count("resnet-18", &image(3, 64, 64)), 11_689_512 - 513_000 + 5_130);
        assert_eq!(count("resnet-20", &image(3, 32, 32)), 269_722 + 16 * 32 + 64 + 32 * 64 + 128);
    }

    #[test]
    fn the_seed_decides_the_weights() {
        let sample = SampleShape::Image { channels: 1, height: 8, width: 8 };
        let weights = |seed| build("small-conv", &sample, 10, Init::KaimingNormal, seed).unwrap().parameters;
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }
}
