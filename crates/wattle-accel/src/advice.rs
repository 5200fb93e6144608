//! Which of the seven bounds holds a layer back most, and what would lift it.

/// The step, as an index into [`STEPS`](crate::STEPS), at which the largest share of what an array of `peak` multipliers could do is lost;
/// the size of the layer, the first, is nobody's loss.
pub fn held_back(bounds: &[f64; 7], peak: f64) -> usize {
    let loss = |step: usize| bounds[step - 1].min(peak) / bounds[step].max(f64::MIN_POSITIVE);
    (1..7).max_by(|&a, &b| loss(a).total_cmp(&loss(b))).unwrap_or(6)
}

/// What would lift the bound of a step.
pub fn advice(step: usize) -> &'static str {
    match step {
        1 => "spread other loops over the array: a more flexible dataflow, or a larger batch",
        2 => "extents that are multiples of the array's size leave fewer PEs idle in the last round",
        3 => "channel counts that are multiples of the axes' sizes fill the array",
        4 => "larger scratch pads, or fewer taps and channels a PE",
        5 => "more ports, more reuse, or a sparser operand that travels compressed",
        _ => {
            "balance non-zeros over channels and filters (structured pruning), or larger maps to amortise loads"
        }
    }
}
