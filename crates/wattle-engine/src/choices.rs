//! What whoever makes a plan may leave to it or decide: sparse kernels, batches in parts.

/// How a network for inference runs a batch whose images no operator mixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Batch {
    /// In parts that stay in the caches, where that saves more than reading the weights for each part costs.
    #[default]
    Auto,
    /// Layer by layer, all images at once.
    Whole,
    /// In so many parts, if the batch can be divided by them: for tests and comparisons.
    Parts(usize),
}

/// When a layer runs on a sparse kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sparse {
    /// Where the cost model finds it faster.
    #[default]
    Auto,
    /// Nowhere: for comparisons.
    Never,
    /// Wherever a sparse kernel exists: for tests.
    Always,
}
