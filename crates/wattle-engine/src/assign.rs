//! What becomes of values after the last step, and which results may take the memory of operands.
//!
//! All assignments of a run take place at once: a value that another assignment overwrites is copied before that.

use wattle_kernels::arena::Span;

use crate::error::EngineError;
use crate::kernel::Io;
use crate::memory::{Storage, StorageId};
use crate::planner::Draft as Step;
use crate::strided::Strided;

/// A copy after the last step whose places are still storages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub from: StorageId,
    pub to: StorageId,
    /// The part of `to` that is written; `None` for all of it.
    pub part: Option<Strided>,
}

/// A copy after the last step.
pub(crate) struct Copy {
    pub from: [Option<Span>; 1],
    pub to: [Span; 1],
    part: Option<Strided>,
}

impl Draft {
    /// The copy in the memory of the plan.
    pub fn placed(self, span: impl Fn(StorageId) -> Span) -> Copy {
        Copy { from: [Some(span(self.from))], to: [span(self.to)], part: self.part }
    }
}

impl Copy {
    /// Copies.
    pub fn run(&self, io: &Io<'_>) -> Result<(), EngineError> {
        match &self.part {
            Some(part) => part.write(io),
            None => {
                io.output::<u8>(0)?.copy_from_slice(io.input(0)?);
                Ok(())
            }
        }
    }
}

/// The copies that are needed, in an order in which none overwrites what a later one reads. Where they go in circles,
/// a value is first brought to a storage of its own, which `new` makes as large as the given one.
pub(crate) fn ordered(
    copies: Vec<Draft>,
    root: impl Fn(StorageId) -> StorageId,
    mut new: impl FnMut(StorageId) -> StorageId,
) -> Vec<Draft> {
    let rooted = |c: Draft| Draft { from: root(c.from), to: root(c.to), part: c.part };
    let mut left: Vec<Draft> =
        copies.into_iter().map(rooted).filter(|c| c.from != c.to || c.part.is_some()).collect();
    let mut ordered = vec![];
    while !left.is_empty() {
        let overwrites = |a: usize| (0..left.len()).any(|b| a != b && left[b].from == left[a].to);
        match (0..left.len()).find(|&a| !overwrites(a)) {
            Some(next) => ordered.push(left.remove(next)),
            None => {
                let aside = new(left[0].from);
                ordered.push(Draft { from: left[0].from, to: aside, part: None });
                left[0].from = aside;
            }
        }
    }
    ordered
}

/// Finds lifetimes, then lets results take the memory of operands that die there, and assigned values the
/// memory of their parameter. Returns the storage each storage has become part of.
pub(crate) fn share(
    storages: &mut [Storage],
    drafts: &[Step],
    after: &[StorageId],
    assigned: &[Draft],
) -> Vec<usize> {
    for (index, draft) in drafts.iter().enumerate() {
        let touched = draft.inputs.iter().flatten().chain(&draft.outputs).chain(&draft.scratch);
        for storage in touched {
            let storage = &mut storages[storage.0];
            storage.first = storage.first.min(index);
            storage.last = storage.last.max(index);
        }
    }
    for &id in after {
        storages[id.0].last = usize::MAX;
    }
    let mut roots: Vec<usize> = (0..storages.len()).collect();
    for (index, draft) in drafts.iter().enumerate() {
        for &(input, output) in &draft.in_place {
            let Some(from) = draft.inputs.get(input).copied().flatten() else { continue };
            let (from, to) = (roots[from.0], draft.outputs[output].0);
            let operands = draft.inputs.iter().flatten().filter(|i| roots[i.0] == from).count();
            let own = |a: &&Draft| a.from.0 == to && a.part.is_none();
            let parameter = assigned.iter().find(own).map(|a| a.to.0);
            let owned = !storages[from].persistent || parameter == Some(from);
            let dies = storages[from].last == index && owned;
            if !dies || operands != 1 || storages[from].bytes != storages[to].bytes {
                continue;
            }
            roots[to] = from;
            storages[from].last = storages[from].last.max(storages[to].last);
            storages[to].bytes = 0;
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(from: usize, to: usize) -> Draft {
        Draft { from: StorageId(from), to: StorageId(to), part: None }
    }

    /// What ten storages that hold their own number hold after the copies.
    fn after(copies: Vec<Draft>) -> Vec<usize> {
        let mut held: Vec<usize> = (0..10).collect();
        for c in ordered(copies, |id| id, |_| StorageId(9)) {
            held[c.to.0] = held[c.from.0];
        }
        held[..9].to_vec()
    }

    #[test]
    fn assignments_take_place_at_once() {
        assert_eq!(after(vec![copy(5, 0), copy(0, 1), copy(1, 2)]), [5, 0, 1, 3, 4, 5, 6, 7, 8]);
        assert_eq!(after(vec![copy(0, 1), copy(1, 0)]), [1, 0, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(after(vec![copy(0, 1), copy(1, 2), copy(2, 0), copy(1, 3)]), [2, 0, 1, 1, 4, 5, 6, 7, 8]);
        assert_eq!(after(vec![copy(0, 0)]), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
