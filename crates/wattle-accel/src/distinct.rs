//! Work on the layers of a network, on several threads, once for layers that differ in name only.

use crate::crew::Crew;
use crate::layer::Layer;

/// The result of `work` for every layer, in order. Layers that are equal but for their name, and that `alike` finds
/// equal too, share one result; `progress` is told after each. Work may call helpers of the same crew.
pub fn each_distinct<T: Clone + Send>(
    layers: &[Layer],
    crew: &Crew,
    alike: impl Fn(&Layer, &Layer) -> bool,
    work: impl Fn(&Layer) -> T + Sync,
    progress: &(dyn Fn() + Sync),
) -> Vec<T> {
    let mut unique: Vec<&Layer> = vec![];
    let mut which = vec![];
    for layer in layers {
        let same =
            |l: &&Layer| Layer { name: layer.name.clone(), ..(*l).clone() } == *layer && alike(l, layer);
        let at = unique.iter().position(same);
        which.push(at.unwrap_or(unique.len()));
        if at.is_none() {
            unique.push(layer);
        }
    }
    let results = crew.side_by_side(unique.len(), |at| {
        let result = work(unique[at]);
        progress();
        result
    });
    which.into_iter().map(|at| results[at].clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn equal_layers_share_one_result_whatever_the_threads() {
        let layers: Vec<Layer> =
            (0..7).map(|i| Layer::conv(&format!("l{i}"), 1, 2 + i % 3, 4, 8, 3, 1)).collect();
        for threads in [1, 3, 64] {
            let (done, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |layer: &Layer| {
                calls.fetch_add(1, Ordering::Relaxed);
                layer.macs()
            };
            let progress = || {
                done.fetch_add(1, Ordering::Relaxed);
            };
            let found = each_distinct(&layers, &Crew::of(threads), |_, _| true, work, &progress);
            assert_eq!(found, layers.iter().map(Layer::macs).collect::<Vec<_>>());
            assert_eq!((calls.load(Ordering::Relaxed), done.load(Ordering::Relaxed)), (3, 3));
            let apart = each_distinct(&layers, &Crew::of(threads), |_, _| false, |l| l.name.clone(), &|| {});
            assert_eq!(apart.len(), 7);
            assert_eq!(apart[6], "l6");
        }
        assert!(each_distinct(&[], &Crew::of(2), |_, _| true, |l| l.macs(), &|| {}).is_empty());
    }
}
