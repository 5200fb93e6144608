//! The space of mappings that the mapper searches, all of it and nothing else.
//!
//! - Every axis of the array carries one or two loops that it allows, in the order N G M C P Q R S, or none. Of two,
//!   the first may be any of its least factors; the last is as wide as the rest of the axis lets it be.
//! - A PE holds `M0` filters, `C0` channels and all or one of the filter's rows and of its columns.
//! - Each buffer holds tiles of M, C, P, and of Q when it holds one row; taps that no PE holds follow inside the
//!   innermost; N and G run at external memory.
//! - At every level the groups positions (N P Q), reduction (C R S) and filters (M) are nested in any order.
//!
//! A least factor is the smallest tile that gives a number of tiles, whether it divides the extent or not.
//! Constraints replace what they fix, also by factors outside this list.

use crate::arch::Architecture;
use crate::constraints::{Level, Limits};
use crate::layer::{Dim, Layer, Operand};
use crate::mapping::{Group, ORDERS, Order};

/// In one sentence, for those who read a proof.
pub const SPACE: &str = "at most two loops an axis, in the order NGMCPQRS, the last as wide as the axis lets it; M0, C0 \
                         and whole or single filter rows and columns in a PE; tiles of M, C, P (of Q within one row) \
                         in each buffer, N and G outside; least factors, divisors or not; every order of positions, \
                         reduction, filters";

/// Loops over the axes of an array.
pub(crate) type Spatial = Vec<Vec<(Dim, usize)>>;

/// The least factors that cut `extent` into each possible number of tiles, up to `limit`, largest first.
pub(crate) fn covers(extent: usize, limit: usize) -> Vec<usize> {
    let mut factors = vec![];
    let mut tiles = 1;
    while tiles <= extent {
        let factor = extent.div_ceil(tiles);
        if factor <= limit {
            factors.push(factor);
        }
        if factor == 1 {
            break;
        }
        // The next number of tiles that allows a smaller factor.
        tiles = extent.div_ceil(factor - 1);
    }
    factors
}

/// All ways to spread loops over one axis.
fn axis_choices(arch: &Architecture, axis: usize, layer: &Layer, limits: &Limits) -> Spatial {
    if let Some(given) = limits.axis(axis) {
        return vec![given.to_vec()];
    }
    let axis = &arch.axes[axis];
    let dims: Vec<Dim> = Dim::ALL.into_iter().filter(|&d| axis.allows(d) && layer.bound(d) > 1).collect();
    let mut choices = vec![];
    let widest = |d: Dim, room: usize| covers(layer.bound(d), room).first().copied().filter(|&n| n > 1);
    for &a in &dims {
        choices.extend(widest(a, axis.size).map(|x| vec![(a, x)]));
    }
    for (i, &a) in dims.iter().enumerate() {
        for &b in &dims[i + 1..] {
            for x in covers(layer.bound(a), axis.size / 2).into_iter().filter(|&x| x > 1) {
                choices.extend(widest(b, axis.size / x).map(|y| vec![(a, x), (b, y)]));
            }
        }
    }
    // An axis stays idle where no loop fits it.
    choices.push(vec![]);
    choices
}

/// All arrays: one choice for every axis, no loop spread wider than it is long.
pub(crate) fn arrays(arch: &Architecture, layer: &Layer, limits: &Limits) -> Vec<Spatial> {
    let mut arrays: Vec<Spatial> = vec![vec![]];
    for axis in 0..arch.axes.len() {
        let choices = axis_choices(arch, axis, layer, limits);
        let fixed = limits.axis(axis).is_some();
        let mut longer = Vec::with_capacity(arrays.len() * choices.len());
        for array in &arrays {
            for choice in &choices {
                let wide = |&(dim, n): &(Dim, usize)| {
                    let before: usize =
                        array.iter().flatten().filter(|(d, _)| *d == dim).map(|(_, n)| *n).product();
                    before * n > layer.bound(dim)
                };
                if fixed || !choice.iter().any(wide) {
                    let mut array = array.clone();
                    array.push(choice.clone());
                    longer.push(array);
                }
            }
        }
        arrays = longer;
    }
    arrays
}

/// Factors that a level may take of a loop: those of the space, unless one is fixed.
fn allowed(level: &Level, dim: Dim, free: impl FnOnce() -> Vec<usize>) -> Vec<usize> {
    match level.fixed(dim) {
        Some(factor) => vec![factor],
        None => {
            let mut factors = free();
            if let Some(most) = level.most(dim) {
                factors.retain(|&n| n <= most);
            }
            factors
        }
    }
}

/// What an array leaves of the loops that a PE may hold: M, C, R and S; 1 for the others.
pub(crate) fn rest(layer: &Layer, array: &Spatial) -> [usize; 8] {
    let mut rest = [1; 8];
    for dim in [Dim::M, Dim::C, Dim::R, Dim::S] {
        let spread: usize = array.iter().flatten().filter(|(d, _)| *d == dim).map(|(_, n)| *n).product();
        rest[dim as usize] = layer.bound(dim).div_ceil(spread);
    }
    rest
}

/// PE tiles for an array that leaves this much of the loops.
pub(crate) fn pe_tiles(arch: &Architecture, rest: &[usize; 8], limits: &Limits) -> Vec<[usize; 8]> {
    let rest = |d: Dim| rest[d as usize];
    let taps = |d: Dim| if rest(d) == 1 { vec![1] } else { vec![rest(d), 1] };
    let held = if arch.pe.keeps(Operand::Iact) { arch.pe.iact_words } else { usize::MAX };
    let one = |d: Dim| limits.pe.fixed(d).unwrap_or(1);
    let [n, g, p, q] = [Dim::N, Dim::G, Dim::P, Dim::Q].map(one);
    let mut tiles = vec![];
    for m in allowed(&limits.pe, Dim::M, || covers(rest(Dim::M), arch.pe.psum_words)) {
        for r in allowed(&limits.pe, Dim::R, || taps(Dim::R)) {
            for s in allowed(&limits.pe, Dim::S, || taps(Dim::S)) {
                for c in allowed(&limits.pe, Dim::C, || covers(rest(Dim::C), held / (r * s))) {
                    tiles.push([n, g, m, c, p, q, r, s]);
                }
            }
        }
    }
    tiles
}

/// Tiles of a buffer: bounds of the loops inside them and of those outside that cover these trips, where the tiles of
/// the next level in have so many rows of PE tiles.
pub(crate) fn splits(
    trips: &[usize; 8],
    rows_inside: usize,
    inside: &Level,
    outside: &Level,
) -> Vec<([usize; 8], [usize; 8])> {
    let of = |dim: Dim, free: &dyn Fn(usize) -> Vec<usize>| -> Vec<(usize, usize)> {
        let trips = trips[dim as usize];
        let pairs = match (inside.fixed(dim), outside.fixed(dim)) {
            (None, Some(outer)) => vec![(trips.div_ceil(outer), outer)],
            (Some(inner), Some(outer)) => vec![(inner, outer)],
            (inner, None) => {
                let inner = inner.map_or_else(|| free(trips), |n| vec![n]);
                inner.into_iter().map(|n| (n, trips.div_ceil(n))).collect()
            }
        };
        let fits = |&(inner, outer): &(usize, usize)| {
            inner * outer >= trips
                && inside.most(dim).is_none_or(|most| inner <= most)
                && outside.most(dim).is_none_or(|most| outer <= most)
        };
        pairs.into_iter().filter(fits).collect()
    };
    let whole = |trips: usize| vec![trips];
    let one = |_: usize| vec![1];
    let any = |trips: usize| covers(trips, trips);
    let (n, g) = (of(Dim::N, &one), of(Dim::G, &one));
    let (r, s) = (of(Dim::R, &whole), of(Dim::S, &whole));
    let (filters, channels) = (of(Dim::M, &any), of(Dim::C, &any));
    let mut maps = vec![];
    for rows in of(Dim::P, &any) {
        let columns = if rows_inside * rows.0 == 1 { of(Dim::Q, &any) } else { of(Dim::Q, &whole) };
        maps.extend(columns.into_iter().map(|columns| (rows, columns)));
    }
    let mut tiles = vec![];
    let (Some(&n), Some(&g), Some(&r), Some(&s)) = (n.first(), g.first(), r.first(), s.first()) else {
        return tiles;
    };
    for (p, q) in maps {
        for &m in &filters {
            for &c in &channels {
                let all = [n, g, m, c, p, q, r, s];
                tiles.push((all.map(|x| x.0), all.map(|x| x.1)));
            }
        }
    }
    tiles
}

/// Orders that differ. Groups without loops do not count. Each group leaves one tensor where it is, so which one is
/// innermost decides what stays; the next one matters only above filters, where it decides whether windows of
/// activations overlap.
pub(crate) fn orders(bounds: &[usize; 8], level: &Level) -> Vec<Order> {
    if let Some(order) = level.order() {
        return vec![order];
    }
    let moves = |group: &Group| group.dims().iter().any(|&d| bounds[d as usize] > 1);
    let mut seen: Vec<[Option<Group>; 2]> = vec![];
    let mut orders = vec![];
    for order in ORDERS {
        let mut moving = order.into_iter().filter(moves);
        let first = moving.next();
        let what = [first, moving.next().filter(|_| first == Some(Group::Filters))];
        if !seen.contains(&what) {
            seen.push(what);
            orders.push(order);
        }
    }
    orders
}

/// How many channels and taps a chain of PEs adds up, and how many such chains hold other filters.
pub(crate) fn chain(spread: &[usize; 8]) -> ((usize, usize), usize) {
    ((spread[3], spread[6] * spread[7]), spread[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_are_the_least_factors_for_every_number_of_tiles() {
        assert_eq!(covers(13, 13), [13, 7, 5, 4, 3, 2, 1]);
        assert_eq!(covers(13, 6), [5, 4, 3, 2, 1]);
        assert_eq!(covers(1, 8), [1]);
    }

    #[test]
    fn orders_that_cannot_differ_are_one() {
        let of = |bounds: [usize; 8]| orders(&bounds, &Level::default()).len();
        assert_eq!(of([1, 1, 2, 2, 2, 2, 1, 1]), 4);
        assert_eq!(of([1, 1, 1, 2, 2, 2, 1, 1]), 2);
        assert_eq!(of([1, 9, 1, 1, 1, 1, 1, 1]), 1);
    }

    #[test]
    fn buffer_tiles_cover_their_trips_with_imperfect_factors_too() {
        let trips = [2, 3, 5, 7, 4, 3, 3, 1];
        let tiles = splits(&trips, 1, &Level::default(), &Level::default());
        for (glb, dram) in &tiles {
            assert!((0..8).all(|i| glb[i] * dram[i] >= trips[i]), "{glb:?} {dram:?}");
        }
        assert!(tiles.iter().any(|(glb, dram)| (glb[3], dram[3]) == (4, 2)), "7 channels as 4 and 3");
    }
}
