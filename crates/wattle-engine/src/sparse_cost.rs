//! Which form of a sparse layer is fastest, from counts alone: an estimate in cycles for each form.
//!
//! The constants were fitted to products measured on Zen 4 (`docs/results/sparse-products.md`), where AVX2 and
//! AVX-512 multiply and load alike. They decide nothing close: a sparse form must win by [`MARGIN`]. The choice depends
//! on counts and the instruction set only, so that a network gives the same bits on every run.

use std::fmt;

use wattle_kernels::conv::ConvShape;
use wattle_kernels::sparse::{self, HEIGHT};
use wattle_kernels::{Cpu, Isa, quantized};

use crate::choices::Sparse;

/// A sparse form is taken if its estimate is below this share of the dense estimate.
const MARGIN: f64 = 0.9;
/// A form whose estimate is below this many times the least is in doubt, and decided by timing where that is wanted.
const DOUBT: f64 = 2.0;
/// Multiply-adds a cycle at most: two vectors, but of AVX-512 one.
const PRODUCTS: usize = 16;
/// Share of the arithmetic peak that dense products reach.
const DENSE_SHARE: f64 = 0.8;
/// How much faster dense convolution by transformed tiles is than direct sums.
const TRANSFORMED: f64 = 1.6;
/// Inputs that beginning and ending a dense group's sum costs as much as, with AVX-512 and with sixteen registers
/// (convolutions of 2 to 32 groups with 36 to 2304 inputs a sum, Zen 4): groups' sums are short.
const GROUP_BEGUN: [f64; 2] = [40.0, 240.0];
/// Bytes a cycle at which weights that are read once arrive.
const STREAM: f64 = 16.0;
/// Positions of a strip and columns of a block, as the kernels cut them.
const STRIP: usize = sparse::STRIP;
const BLOCK: f64 = sparse::BLOCK_COLUMNS as f64;

/// Products of bytes: with more non-zeros than this share, sparse kernels are not considered.
const BYTES_WORTH_COUNTING: f64 = 0.5;

/// What kernels of bytes cost, in cycles; measured on Zen 4.
struct ByteRates {
    /// Multiply-adds a cycle of the dense kernel, and cycles that an element of its operand or its result adds.
    dense: f64,
    moved: f64,
    /// Rows of a strip.
    strip: usize,
    /// A group of non-zeros with a strip, an output of a strip, and a byte that is turned.
    group: f64,
    output: f64,
    turned: f64,
}

impl ByteRates {
    fn of(cpu: &Cpu) -> ByteRates {
        match (quantized::group(cpu), cpu.isa) {
            (4, _) => {
                ByteRates { dense: 45.0, moved: 0.0, strip: 64, group: 8.5, output: 25.0, turned: 0.25 }
            }
            (_, Isa::Scalar(_)) => {
                ByteRates { dense: 3.0, moved: 1.0, strip: 32, group: 24.0, output: 200.0, turned: 2.0 }
            }
            _ => ByteRates { dense: 22.0, moved: 1.0, strip: 32, group: 5.5, output: 45.0, turned: 0.35 },
        }
    }
}

/// How a layer may be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Dense,
    /// Dense, by direct sums where transformed tiles would be taken.
    Direct,
    /// Single elements, panels of activations.
    Unstructured,
    /// Blocks of 4 x 1.
    Blocked,
    /// One vector at a time.
    Vector,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Dense => "dense",
            Form::Direct => "direct",
            Form::Unstructured => "csr",
            Form::Blocked => "4x1",
            Form::Vector => "vector",
        })
    }
}

/// What the estimate needs of a layer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layer {
    /// Outputs at one position.
    pub rows: usize,
    /// Inputs at one position (over all taps of a convolution) that one output sees.
    pub columns: usize,
    /// Groups of a convolution, each with columns and rows of its own; 0 counts as 1.
    pub groups: usize,
    /// Samples or pixels.
    pub positions: usize,
    /// Activations that are transposed on their way in and out.
    pub transposed: usize,
    /// Whether a panel is gathered from taps rather than transposed.
    pub taps: bool,
    /// Whether the vector form applies.
    pub vector: bool,
    /// Whether the dense kernel transforms tiles instead of summing directly.
    pub transformed: bool,
    /// Non-zeros.
    pub kept: usize,
    /// 4 x 1 blocks with a non-zero.
    pub blocks: usize,
}

impl Layer {
    /// A product of `positions` rows of activations with weights that make `rows` of `columns`.
    pub fn of_product(positions: usize, rows: usize, columns: usize) -> Layer {
        Layer { rows, columns, positions, transposed: positions * (rows + columns), ..Layer::default() }
    }

    /// A convolution, to be computed by sparse kernels.
    pub fn of_conv_shape(shape: &ConvShape) -> Layer {
        let [height, width] = shape.output();
        let taps = shape.kernel[0] * shape.kernel[1];
        let plain = taps == 1 && shape.stride == [1, 1] && shape.pads == [0; 4];
        let line =
            if plain { width } else { width + (shape.kernel[1] - 1) * shape.dilation[1] / shape.stride[1] };
        Layer {
            rows: shape.filters,
            columns: shape.channels / shape.groups * taps,
            groups: shape.groups,
            positions: shape.batch * height * line,
            transposed: shape.input_len() + shape.output_len(),
            taps: !plain,
            transformed: shape.is_transformed(),
            ..Layer::default()
        }
    }

    /// The same with so many non-zeros anywhere.
    pub fn keeping(self, kept: usize) -> Layer {
        Layer { kept, blocks: kept, ..self }
    }

    /// Counts the non-zeros of weights `[rows, columns]`, or `[columns, rows]` if `transposed`.
    pub fn count(mut self, weights: &[f32], transposed: bool) -> Layer {
        let (rows, columns) = (self.rows, self.columns);
        let mut block = vec![false; columns];
        for band in 0..rows.div_ceil(4) {
            block.fill(false);
            for row in band * 4..rows.min(band * 4 + 4) {
                for (column, block) in block.iter_mut().enumerate() {
                    let at = if transposed { column * rows + row } else { row * columns + column };
                    let kept = weights[at] != 0.0;
                    self.kept += usize::from(kept);
                    *block |= kept;
                }
            }
            self.blocks += block.iter().filter(|b| **b).count();
        }
        self
    }

    /// Whether there are groups of so few filters that each is one block of the blocked form at most: even without zeros
    /// they were then faster as one sparse matrix (ResNeXt's of 4: 2.1 to 1.2 ms), and with 8 or more filters not.
    pub fn has_small_groups(&self) -> bool {
        self.groups > 1 && self.rows <= HEIGHT * self.groups
    }

    /// Non-zeros of all weights, 0 to 1.
    pub fn density(&self) -> f64 {
        self.kept as f64 / (self.rows * self.columns).max(1) as f64
    }

    /// Estimated cycles of a form on an instruction set of so many lanes.
    fn cycles(&self, form: Form, lanes: usize) -> f64 {
        let (rows, columns, positions) = (self.rows as f64, self.columns as f64, self.positions as f64);
        let kept = self.kept as f64;
        let groups = self.groups.max(1);
        let Passes { strips, products, packing, visits } = self.passes(lanes);
        match form {
            Form::Dense | Form::Direct => {
                // Groups are products of their own, in whole vectors of outputs.
                let (outputs, begun) = match groups {
                    1 => (rows, 0.0),
                    _ => {
                        let outputs = (self.rows / groups).next_multiple_of(lanes) * groups;
                        (outputs as f64, GROUP_BEGUN[usize::from(lanes < 16)])
                    }
                };
                let arithmetic = outputs * (columns + begun) * positions / (peak(lanes) * DENSE_SHARE);
                let tiles = self.transformed && form == Form::Dense;
                let arithmetic = if tiles { arithmetic / TRANSFORMED } else { arithmetic };
                arithmetic.max(4.0 * rows * columns / STREAM)
            }
            Form::Unstructured => {
                packing + kept * (0.8 * strips + 1.15 * products) + visits * (4.0 * strips + 3.0 * products)
            }
            Form::Blocked => {
                let blocks = self.blocks as f64;
                packing + blocks * (0.3 * strips + 4.1 * products) + visits * (strips + 2.0 * products)
            }
            // Gathers, or with AVX-512 lookups in registers.
            Form::Vector if lanes < 16 => positions * (0.75 * kept + 18.0 * rows),
            Form::Vector => positions * (0.4 * kept + 3.0 * rows),
        }
    }

    /// Estimated cycles of the product that gives the gradient of the kept weights.
    fn sampled_cycles(&self, lanes: usize) -> f64 {
        let Passes { strips, products, packing, visits } = self.passes(lanes);
        let kept = self.kept as f64;
        packing + kept * (3.5 * strips + 1.1 * products) + visits * (4.0 * strips + 2.5 * products)
    }

    fn passes(&self, lanes: usize) -> Passes {
        let vectors =
            self.positions / STRIP * STRIP.div_ceil(lanes) + (self.positions % STRIP).div_ceil(lanes);
        let products = (vectors * lanes) as f64 / peak(lanes);
        let columns = self.columns as f64;
        // With groups a panel serves few outputs, and what it costs shows: half a cycle for each number (ResNeXt, Zen 4).
        let copied = if self.groups > 1 { 8.0 * self.groups as f64 } else { 2.0 };
        Passes {
            strips: self.positions.div_ceil(STRIP) as f64,
            products,
            packing: 0.25 * self.transposed as f64
                + if self.taps { copied * columns * products } else { 0.0 },
            visits: self.rows as f64 * (columns / BLOCK).ceil(),
        }
    }

    /// The dense forms it can take.
    pub fn dense_forms(&self) -> impl Iterator<Item = Form> {
        [Form::Dense].into_iter().chain(self.transformed.then_some(Form::Direct))
    }

    /// The sparse forms it can take, with their estimated cycles.
    fn sparse_forms(&self, lanes: usize) -> impl Iterator<Item = (Form, f64)> {
        let forms = [Form::Unstructured, Form::Blocked, Form::Vector].into_iter();
        forms.filter(|&f| self.vector || f != Form::Vector).map(move |f| (f, self.cycles(f, lanes)))
    }

    /// The fastest form, and the estimates behind it.
    pub fn choose(&self, lanes: usize) -> Choice {
        let dense = self.cycles(Form::Dense, lanes);
        let (form, sparse) =
            self.sparse_forms(lanes).min_by(|a, b| a.1.total_cmp(&b.1)).expect("two forms at least");
        let taken = if sparse < MARGIN * dense { form } else { Form::Dense };
        Choice { form: taken, density: self.density(), gain: dense / sparse.max(1.0) }
    }

    /// The forms that may be fastest, the estimates being what they are; the dense one first.
    pub fn contenders(&self, lanes: usize) -> Vec<Form> {
        let dense = self.dense_forms().map(|f| (f, self.cycles(f, lanes)));
        let forms: Vec<(Form, f64)> = dense.chain(self.sparse_forms(lanes)).collect();
        let least = forms.iter().map(|f| f.1).fold(f64::INFINITY, f64::min);
        forms.into_iter().filter(|f| f.1 < DOUBT * least).map(|f| f.0).collect()
    }
}

/// Multiply-adds a cycle with vectors of so many lanes.
fn peak(lanes: usize) -> f64 {
    PRODUCTS.min(2 * lanes) as f64
}

/// What all sparse products of a layer go through.
struct Passes {
    /// Strips of positions, each of which reads the weights once.
    strips: f64,
    /// Cycles of one non-zero's multiply-adds with all positions.
    products: f64,
    /// Cycles of turning activations, or gathering them from taps.
    packing: f64,
    /// Rows begun or resumed in a block of columns.
    visits: f64,
}

/// A layer's kernels between which the cost model is in doubt.
#[derive(Clone, Debug)]
pub(crate) struct Doubt {
    layer: String,
    taken: Form,
    forms: Vec<Form>,
}

impl Doubt {
    /// The model takes one of `forms`; `None` where that is the only one.
    pub fn new(layer: String, taken: Form, forms: Vec<Form>) -> Option<Doubt> {
        (forms.len() > 1 && forms.contains(&taken)).then_some(Doubt { layer, taken, forms })
    }

    /// What tells the layer from others.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// The form that the model takes.
    pub fn taken(&self) -> Form {
        self.taken
    }

    /// The forms in doubt.
    pub fn forms(&self) -> &[Form] {
        &self.forms
    }
}

/// What the estimate needs of a product of bytes: m rows by a matrix `[k, n]`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByteLayer {
    m: usize,
    k: usize,
    n: usize,
    kept: usize,
    /// Groups of non-zeros, each of one output.
    groups: usize,
}

/// How a product of bytes is computed.
#[derive(Debug, Default)]
pub(crate) struct ByteChoice {
    /// By its non-zeros.
    pub sparse: bool,
    /// Why, where weights are sparse enough to say.
    pub why: Option<String>,
    pub doubt: Option<Doubt>,
}

impl ByteLayer {
    /// Counts what is not zero.
    pub fn count(cpu: &Cpu, m: usize, k: usize, n: usize, kept: impl Fn(usize, usize) -> bool) -> ByteLayer {
        let mut of_column = vec![0usize; n];
        for row in 0..k {
            of_column.iter_mut().enumerate().for_each(|(j, count)| *count += usize::from(kept(row, j)));
        }
        let groups = of_column.iter().map(|count| count.div_ceil(quantized::group(cpu))).sum();
        ByteLayer { m, k, n, kept: of_column.iter().sum(), groups }
    }

    /// The kernel for this processor, or the form demanded.
    pub fn choose(&self, sparse: Sparse, form: Option<Form>, cpu: &Cpu) -> ByteChoice {
        let [m, k, n, groups] = [self.m, self.k, self.n, self.groups].map(|x| x as f64);
        let percent = 100.0 * self.kept as f64 / (k * n).max(1.0);
        let worth = percent < 100.0 * BYTES_WORTH_COUNTING;
        match sparse {
            Sparse::Never if worth => {
                let why = Some("sparse kernels are switched off".into());
                return ByteChoice { why, ..ByteChoice::default() };
            }
            Sparse::Never => return ByteChoice::default(),
            Sparse::Always => return ByteChoice { sparse: true, ..ByteChoice::default() },
            Sparse::Auto if !worth => return ByteChoice::default(),
            Sparse::Auto => {}
        }
        let rates = ByteRates::of(cpu);
        let strips = self.m.div_ceil(rates.strip) as f64;
        // Threads take whole strips, or make a panel each.
        let panels = strips.max(cpu.threads.count() as f64);
        let dense = (m * k * n / rates.dense + m * (k + n) * rates.moved).max(k * n / STREAM);
        let found = strips * (groups * rates.group + n * rates.output)
            + (panels * k + strips * n) * rates.strip as f64 * rates.turned;
        let gain = dense / found.max(1.0);
        let taken = if found < MARGIN * dense { Form::Unstructured } else { Form::Dense };
        let why = match taken {
            Form::Dense => {
                format!("{percent:.1} % non-zero: the sparse kernel is modelled at {gain:.2}x dense")
            }
            _ => format!("{percent:.1} % non-zero: modelled {gain:.1}x faster than dense"),
        };
        let in_doubt = (1.0 / DOUBT..=DOUBT).contains(&gain);
        let forms = if in_doubt { vec![Form::Dense, Form::Unstructured] } else { vec![taken] };
        let doubt = Doubt::new(format!("bytes {self:?}"), taken, forms);
        ByteChoice { sparse: form.unwrap_or(taken) != Form::Dense, why: Some(why), doubt }
    }
}

/// A form and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub form: Form,
    density: f64,
    gain: f64,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, gain) = (100.0 * self.density, self.gain);
        match self.form {
            Form::Dense => {
                write!(f, "{percent:.1} % non-zero: the best sparse kernel is modelled at {gain:.2}x dense")
            }
            _ => write!(f, "{percent:.1} % non-zero: modelled {gain:.1}x faster than dense"),
        }
    }
}

/// Estimated cycles of a layer's part of a training step: its products, and the update of its weight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Training {
    density: f64,
    dense: f64,
    sparse: f64,
}

impl Training {
    /// Adds a product with the weight: forward, or for the gradient of the input.
    pub fn add_product(&mut self, layer: &Layer, lanes: usize) {
        self.dense += layer.cycles(Form::Dense, lanes);
        self.sparse += layer.cycles(Form::Unstructured, lanes);
    }

    /// Adds the product that gives the weight's gradient.
    pub fn add_sampled(&mut self, layer: &Layer, lanes: usize) {
        self.dense += layer.cycles(Form::Dense, lanes);
        self.sparse += layer.sampled_cycles(lanes);
    }

    /// Adds an update that moves `tensors` results (the weight and its state) of `len` elements, `kept` of them kept.
    pub fn add_update(&mut self, len: usize, kept: usize, tensors: usize) {
        // Read and written, 4 bytes each; the gradient is read.
        let bytes = (8 * tensors + 4) as f64;
        self.dense += len as f64 * bytes / STREAM;
        self.sparse += kept as f64 * bytes / STREAM;
        self.density = kept as f64 / len.max(1) as f64;
    }

    /// Whether training on non-zeros is faster, by the margin.
    pub fn is_faster(&self) -> bool {
        self.sparse < MARGIN * self.dense
    }
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, gain) = (100.0 * self.density, self.dense / self.sparse.max(1.0));
        write!(f, "{percent:.1} % kept: training on them is modelled {gain:.1}x as fast as dense")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(rows: usize, columns: usize, positions: usize, density: f64) -> Layer {
        let kept = (rows as f64 * columns as f64 * density) as usize;
        let transposed = (rows + columns) * positions;
        Layer { rows, columns, positions, transposed, kept, blocks: kept, vector: true, ..Default::default() }
    }

    #[test]
    fn dense_weights_stay_dense_and_sparse_ones_do_not() {
        for lanes in [8, 16] {
            for positions in [1, 16, 64, 1000] {
                assert_eq!(layer(512, 512, positions, 1.0).choose(lanes).form, Form::Dense);
                assert_ne!(layer(512, 512, positions, 0.05).choose(lanes).form, Form::Dense);
            }
        }
    }

    #[test]
    fn a_single_vector_takes_the_vector_form_and_full_blocks_the_blocked() {
        assert_eq!(layer(300, 784, 1, 0.1).choose(16).form, Form::Vector);
        let full = layer(512, 512, 256, 0.1);
        assert_eq!(Layer { blocks: full.kept / 4, ..full }.choose(16).form, Form::Blocked);
        assert_eq!(full.choose(16).form, Form::Unstructured);
    }

    #[test]
    fn what_is_close_is_in_doubt_and_what_is_not_is_decided() {
        assert!(!layer(512, 512, 1000, 0.01).contenders(16).contains(&Form::Dense));
        let wide = Layer { blocks: 512 * 512 / 4, ..layer(512, 512, 1000, 1.0) };
        assert!(!wide.contenders(16).contains(&Form::Vector));
        let close = layer(512, 512, 1000, 0.5);
        assert!(close.contenders(16).starts_with(&[Form::Dense, Form::Unstructured]));
    }

    #[test]
    fn counting_reads_both_orders() {
        let weights = [1.0, 0.0, 2.0, 0.0, 0.0, 3.0];
        let shape = Layer { rows: 2, columns: 3, ..Default::default() };
        let counted = shape.count(&weights, false);
        assert_eq!((counted.kept, counted.blocks), (3, 2));
        let turned = shape.count(&[1.0, 0.0, 0.0, 0.0, 2.0, 3.0], true);
        assert_eq!((turned.kept, turned.blocks), (3, 2));
    }
}
