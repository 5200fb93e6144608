//! Constraints on mappings, from a file: loop factors, orders and spatial loops that are fixed or bounded, for all
//! layers or for some.
//!
//! ```toml
//! [[constraint]]
//! layers = ["layer1.*"]                # absent: every layer
//! pe = { factors = { C = 4 }, most = { M = 16 } }
//! # Levels are `pe`, `dram` and the architecture's buffers by name.
//! glb = { order = ["filters", "positions", "reduction"] }   # from the outermost in
//! axes = { "PE row" = { R = 3 }, "cluster column" = {} }    # exactly these loops; {} leaves the axis idle
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::arch::Architecture;
use crate::error::AccelError;
use crate::layer::{Dim, Layer, Operand};
use crate::mapping::{Group, Order};
use crate::syntax::Syntax;

/// What a file asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// One after the other; two that contradict each other on a layer are an error.
    #[serde(default, rename = "constraint")]
    pub list: Vec<Constraint>,
}

/// What is asked of some layers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Constraint {
    /// Names of layers, in which `*` stands for any text; absent means all.
    pub layers: Option<Vec<String>>,
    /// For axes by name, all their loops.
    #[serde(default)]
    pub axes: BTreeMap<String, BTreeMap<String, usize>>,
    /// Loops at levels: `pe`, `dram`, and buffers by name.
    #[serde(flatten)]
    pub levels: BTreeMap<String, LevelConstraint>,
}

/// What is asked of the loops of a level.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelConstraint {
    /// Factors of loops, by letter.
    #[serde(default)]
    pub factors: BTreeMap<String, usize>,
    /// Largest factors, by letter.
    #[serde(default)]
    pub most: BTreeMap<String, usize>,
    /// Order of the groups, from the outermost in.
    pub order: Option<Vec<String>>,
}

/// The limits of one level of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Level {
    fixed: [Option<usize>; 8],
    most: [Option<usize>; 8],
    order: Option<Order>,
}

impl Level {
    pub fn fixed(&self, dim: Dim) -> Option<usize> {
        self.fixed[dim as usize]
    }

    pub fn most(&self, dim: Dim) -> Option<usize> {
        self.most[dim as usize]
    }

    pub fn order(&self) -> Option<Order> {
        self.order
    }
}

/// All limits of one layer; by default none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    axes: Vec<Option<Vec<(Dim, usize)>>>,
    pub pe: Level,
    /// From external memory in, as in a mapping.
    levels: Vec<Level>,
}

/// No limits.
pub(crate) const FREE: Level = Level { fixed: [None; 8], most: [None; 8], order: None };

impl Limits {
    /// The limits of a level, counted from external memory.
    pub fn level(&self, at: usize) -> &Level {
        self.levels.get(at).unwrap_or(&FREE)
    }

    /// The loops that an axis must carry, if they are given.
    pub fn axis(&self, axis: usize) -> Option<&[(Dim, usize)]> {
        self.axes.get(axis)?.as_deref()
    }
}

impl Constraints {
    /// Constraints from a file's text.
    pub fn parse(syntax: Syntax, text: &str) -> Result<Constraints, AccelError> {
        syntax.read("constraints", text)
    }

    /// Refuses patterns that no layer answers to, so that a misspelt one cannot pass for a kept constraint.
    pub fn check(&self, layers: &[Layer]) -> Result<(), AccelError> {
        for pattern in self.list.iter().filter_map(|c| c.layers.as_ref()).flatten() {
            if !layers.iter().any(|l| answers(&l.name, pattern)) {
                let names: Vec<&str> = layers.iter().map(|l| l.name.as_str()).collect();
                let reason = format!("there is no such layer; the layers are: {}", names.join(", "));
                return Err(AccelError::invalid(format!("constraint on `{pattern}`"), reason));
            }
        }
        Ok(())
    }

    /// The limits of a layer, refused where the architecture cannot keep them.
    pub(crate) fn limits(&self, arch: &Architecture, layer: &Layer) -> Result<Limits, AccelError> {
        let mut limits = Limits {
            axes: vec![None; arch.axes.len()],
            pe: FREE,
            levels: vec![FREE; arch.buffers.len() + 1],
        };
        let outside: Vec<&str> =
            std::iter::once("dram").chain(arch.buffers.iter().map(|b| b.name.as_str())).collect();
        let meant = |c: &&Constraint| {
            c.layers.as_ref().is_none_or(|patterns| patterns.iter().any(|p| answers(&layer.name, p)))
        };
        for constraint in self.list.iter().filter(meant) {
            for (name, asked) in &constraint.levels {
                let level = match outside.iter().position(|known| known == name) {
                    Some(at) => &mut limits.levels[at],
                    None if name == "pe" => &mut limits.pe,
                    None => {
                        let reason =
                            format!("`{}` has no such level, but: {}, pe", arch.name, outside.join(", "));
                        return Err(AccelError::invalid(format!("constraint on `{name}`"), reason));
                    }
                };
                level.add(name, asked)?;
                if name == "pe" && asked.order.is_some() {
                    return Err(AccelError::invalid(
                        "constraint, pe.order",
                        "the order inside a PE is fixed",
                    ));
                }
            }
            for (name, loops) in &constraint.axes {
                let Some(at) = arch.axes.iter().position(|a| a.name == *name) else {
                    let known: Vec<&str> = arch.axes.iter().map(|a| a.name.as_str()).collect();
                    let reason = format!("`{}` has no such axis, but: {}", arch.name, known.join(", "));
                    return Err(AccelError::invalid(format!("constraint on axis `{name}`"), reason));
                };
                let loops = factors(&format!("axis `{name}`"), loops)?;
                let same = |given: &Vec<(Dim, usize)>| *given == loops;
                if limits.axes[at].as_ref().is_some_and(|given| !same(given)) {
                    let reason = "two constraints ask for different loops".to_string();
                    return Err(AccelError::invalid(format!("constraint on axis `{name}`"), reason));
                }
                limits.axes[at] = Some(loops);
            }
        }
        limits.check(arch, layer)?;
        Ok(limits)
    }
}

impl Level {
    fn add(&mut self, name: &str, asked: &LevelConstraint) -> Result<(), AccelError> {
        let pairs = [("factors", &asked.factors, &mut self.fixed), ("most", &asked.most, &mut self.most)];
        for (field, asked, kept) in pairs {
            for (dim, n) in factors(&format!("{name}.{field}"), asked)? {
                let slot = &mut kept[dim as usize];
                if let Some(before) = slot.filter(|before| *before != n) {
                    let place = format!("constraint, {name}.{field}");
                    let reason = format!("{} is asked to be {before} and {n}", dim.letter());
                    return Err(AccelError::invalid(place, reason));
                }
                *slot = Some(n);
            }
        }
        for dim in Dim::ALL {
            if let (Some(fixed), Some(most)) = (self.fixed(dim), self.most(dim))
                && fixed > most
            {
                let reason = format!("{} is asked to be {fixed} and at most {most}", dim.letter());
                return Err(AccelError::invalid(format!("constraint, {name}"), reason));
            }
        }
        if let Some(names) = &asked.order {
            let order = order(names).ok_or_else(|| {
                let reason = format!(
                    "found {}, expected positions, reduction and filters, each once, from the outermost in",
                    names.join(", ")
                );
                AccelError::invalid(format!("constraint, {name}.order"), reason)
            })?;
            if self.order.is_some_and(|before| before != order) {
                let place = format!("constraint, {name}.order");
                return Err(AccelError::invalid(place, "two constraints ask for different orders"));
            }
            self.order = Some(order);
        }
        Ok(())
    }
}

impl Limits {
    /// What cannot be kept whatever the mapping.
    fn check(&self, arch: &Architecture, layer: &Layer) -> Result<(), AccelError> {
        let infeasible = |constraint: String, required: String, available: String| {
            Err(AccelError::Infeasible {
                layer: layer.name.clone(),
                arch: arch.name.clone(),
                constraint: format!("constraint: {constraint}"),
                required,
                available,
            })
        };
        let mut spread = [1usize; 8];
        for (axis, loops) in arch.axes.iter().zip(&self.axes) {
            let Some(loops) = loops else { continue };
            let used = loops.iter().try_fold(1usize, |n, (_, m)| n.checked_mul(*m)).unwrap_or(usize::MAX);
            if used > axis.size {
                let (required, available) = (format!("{used} positions"), format!("{} positions", axis.size));
                return infeasible(format!("loops over the axis `{}`", axis.name), required, available);
            }
            if let Some((dim, _)) = loops.iter().find(|(d, n)| *n > 1 && !axis.allows(*d)) {
                let required = format!("{} over it", dim.letter());
                let available = format!("only {}", axis.dims);
                return infeasible(format!("loops over the axis `{}`", axis.name), required, available);
            }
            for (dim, n) in loops {
                spread[*dim as usize] *= n;
            }
        }
        let of = |d: Dim| self.pe.fixed(d).unwrap_or(1);
        let iacts = [Dim::N, Dim::G, Dim::C, Dim::R, Dim::S].map(of).iter().product::<usize>()
            * of(Dim::P).max(of(Dim::Q));
        let psums = [Dim::N, Dim::G, Dim::M, Dim::P, Dim::Q].map(of).iter().product::<usize>();
        let pads = [
            ("activations in the iact pad of a PE", iacts, arch.pe.iact_words, Operand::Iact),
            ("partial sums in the psum pad of a PE", psums, arch.pe.psum_words, Operand::Psum),
        ];
        for (what, needed, held, operand) in pads {
            if arch.pe.keeps(operand) && needed > held {
                return infeasible(
                    format!("factors of {what}"),
                    format!("{needed} words"),
                    format!("{held} words"),
                );
            }
        }
        for dim in Dim::ALL {
            let levels = std::iter::once(&self.pe).chain(&self.levels);
            let product = |n: usize, level: &Level| Some(n.saturating_mul(level.fixed(dim)?));
            let Some(fixed) = levels.into_iter().try_fold(1, product) else { continue };
            let free =
                arch.axes.iter().zip(&self.axes).filter(|(axis, loops)| loops.is_none() && axis.allows(dim));
            let widest: usize = free.map(|(axis, _)| axis.size).product();
            let most = fixed.saturating_mul(spread[dim as usize] * widest);
            if most < layer.bound(dim) {
                return infeasible(
                    format!("factors of {}, over all levels", dim.letter()),
                    format!("{} iterations", layer.bound(dim)),
                    format!("at most {most} iterations"),
                );
            }
        }
        Ok(())
    }
}

/// Factors by letter, in the order of the dimensions.
fn factors(place: &str, asked: &BTreeMap<String, usize>) -> Result<Vec<(Dim, usize)>, AccelError> {
    let mut list = vec![];
    for (letter, &n) in asked {
        let Some(dim) = Dim::from_letter(letter) else {
            let reason = format!("found the loop `{letter}`, expected one of N G M C P Q R S");
            return Err(AccelError::invalid(format!("constraint, {place}"), reason));
        };
        if n == 0 || n > 1 << 24 {
            let reason = format!("found {letter} = {n}, expected 1 to {}", 1 << 24);
            return Err(AccelError::invalid(format!("constraint, {place}"), reason));
        }
        list.push((dim, n));
    }
    list.sort_by_key(|(dim, _)| *dim);
    Ok(list)
}

/// An order from names of groups, from the outermost in.
pub(crate) fn order(names: &[String]) -> Option<Order> {
    let mut groups = names.iter().rev().map(|n| Group::from_name(n));
    let order = [groups.next()??, groups.next()??, groups.next()??];
    let once = |g: &Group| order.iter().filter(|o| *o == g).count() == 1;
    (groups.next().is_none() && order.iter().all(once)).then_some(order)
}

/// Whether a name answers to a pattern in which `*` stands for any text.
fn answers(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((end, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, AccelError> {
        let arch = Architecture::named("eyeriss-v2").unwrap();
        let layer = Layer::conv("layer1.conv", 1, 64, 64, 56, 3, 1);
        Constraints::parse(Syntax::Toml, text)?.limits(&arch, &layer)
    }

    #[test]
    fn patterns_stand_for_any_text() {
        for (pattern, name, answer) in [
            ("*", "", true),
            ("conv1", "conv1", true),
            ("conv1", "conv10", false),
            ("layer1.*", "layer1.conv", true),
            ("*conv", "layer1.conv", true),
            ("l*1*v", "layer1.conv", true),
            ("l*2*v", "layer1.conv", false),
        ] {
            assert_eq!(answers(name, pattern), answer, "{pattern} {name}");
        }
    }

    #[test]
    fn constraints_of_other_layers_do_not_count() {
        assert_eq!(
            limits("[[constraint]]\nlayers = [\"fc\"]\npe = { factors = { C = 999 } }").unwrap(),
            Limits { axes: vec![None; 4], pe: FREE, levels: vec![FREE; 2] }
        );
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_what_it_needs_and_what_there_is() {
        for (text, words) in [
            ("pe = { factors = { C = 24, S = 1 } }", ["iact pad", "24 words", "16 words"]),
            ("axes = { \"PE row\" = { M = 4 } }", ["PE row", "4 positions", "3 positions"]),
            ("axes = { \"PE column\" = { C = 4 } }", ["PE column", "C over it", "only MPQGN"]),
            ("axes = { \"row\" = { C = 4 } }", ["`row`", "cluster row", "no such axis"]),
            ("pe = { factors = { X = 2 } }", ["`X`", "pe.factors", "N G M"]),
            ("glb = { order = [\"filters\"] }", ["glb.order", "filters", "each once"]),
            ("glb = { factors = { C = 4 }, most = { C = 2 } }", ["C", "4", "at most 2"]),
            ("l2 = { factors = { C = 4 } }", ["`l2`", "no such level", "dram, glb, pe"]),
            ("glb = { factor = { C = 4 } }", ["factor", "unknown", "factors"]),
        ] {
            let error = limits(&format!("[[constraint]]\n{text}")).unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)), "{error}");
        }
    }

    #[test]
    fn the_same_file_in_yaml_says_the_same() {
        let toml =
            "[[constraint]]\nlayers = [\"a*\"]\npe = { factors = { C = 4 } }\naxes = { X = { R = 3 } }";
        let yaml = "constraint:\n- layers: ['a*']\n  pe: {factors: {C: 4}}\n  axes: {X: {R: 3}}\n";
        let read = |syntax, text| Constraints::parse(syntax, text).unwrap();
        assert_eq!(read(Syntax::Toml, toml), read(Syntax::Yaml, yaml));
    }
}
