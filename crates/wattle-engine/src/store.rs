//! Parameters that outlive sessions: named tensors with their masks and versions, shared by all who hold a handle.

mod contents;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use wattle_graph::{DType, Graph, GraphError, Mask, Parameters, Tensor};

pub(crate) use contents::{Contents, Needed, Wanted};

use crate::choices::Freeze;
use crate::error::EngineError;
use contents::key_of;

/// Named tensors that sessions read and write, each with its mask, if it has one, and a version that counts its writes.
///
/// A store is a handle: clones share the tensors. A run that assigns to parameters has the store to itself; runs that
/// only read share it. What one session's run has written, the next run of every other session sees. Names and types of
/// tensors never change, so sessions stay valid; a new mask asks for new plans, and sessions say so.
#[derive(Clone)]
pub struct Store {
    /// Tells its tensors from those of all other stores of this process.
    identity: u64,
    contents: Arc<RwLock<Contents>>,
}

/// What a plan must know of a stored tensor.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub dtype: DType,
    pub extents: Vec<usize>,
    pub mask: Option<Arc<Mask>>,
    pub mask_key: u64,
}

/// What of a stored tensor decides a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredKey {
    name: String,
    dtype: DType,
    extents: Vec<usize>,
    mask: u64,
    /// Store and version, where the plan takes the tensor in.
    frozen: Option<(u64, u64)>,
}

/// What a plan must know of the stored tensors that its graph names.
pub(crate) type Facts = HashMap<String, Fact>;

impl Default for Store {
    /// A store without tensors.
    fn default() -> Store {
        static STORES: AtomicU64 = AtomicU64::new(0);
        Store { identity: STORES.fetch_add(1, Ordering::Relaxed), contents: Arc::default() }
    }
}

impl Store {
    /// The tensors and masks of `parameters`; no element is copied until a session needs it.
    pub fn new(parameters: &Parameters) -> Store {
        let store = Store::default();
        let mut contents = store.lock();
        for (name, tensor) in parameters.iter() {
            contents.add(name, tensor.clone(), parameters.mask(name).cloned());
        }
        drop(contents);
        store
    }

    /// All tensors as they are now, and all masks.
    pub fn parameters(&self) -> Parameters {
        let contents = self.peek();
        let mut parameters = Parameters::new();
        for (name, &slot) in &contents.by_name {
            parameters.insert(name.as_str(), contents.tensor(slot));
            if let Some(mask) = &contents.slots[slot].mask {
                parameters.set_mask(name, (**mask).clone());
            }
        }
        parameters
    }

    /// The named tensor as it is now.
    pub fn read(&self, name: &str) -> Result<Arc<Tensor>, EngineError> {
        let contents = self.peek();
        Ok(contents.tensor(contents.slot(name)?))
    }

    /// Writes the named tensor; where its mask is off, it becomes zero.
    ///
    /// # Errors
    /// When there is no tensor of that name, or it has another type or shape.
    pub fn write(&self, name: &str, tensor: &Tensor) -> Result<(), EngineError> {
        let mut contents = self.lock();
        let slot = contents.slot(name)?;
        contents.set(name, slot, Arc::new(tensor.clone()))
    }

    /// Writes the named tensor, or adds it where there is none of that name.
    ///
    /// # Errors
    /// When there is a tensor of that name with another type or shape.
    pub fn insert(&self, name: &str, tensor: impl Into<Arc<Tensor>>) -> Result<(), EngineError> {
        let mut contents = self.lock();
        match contents.by_name.get(name).copied() {
            Some(slot) => contents.set(name, slot, tensor.into()),
            None => {
                contents.add(name, tensor.into(), None);
                Ok(())
            }
        }
    }

    /// Writes or adds all tensors of `parameters`, with their masks.
    ///
    /// # Errors
    /// When a tensor has another type or shape than the one of its name here; those before it, by name, are written.
    pub fn load(&self, parameters: &Parameters) -> Result<(), EngineError> {
        for (name, tensor) in parameters.iter() {
            self.insert(name, tensor.clone())?;
            let mask = parameters.mask(name).cloned();
            let same = self.peek().fact(name)?.mask.as_deref() == mask.as_ref();
            if !same {
                self.set_mask(name, mask)?;
            }
        }
        Ok(())
    }

    /// Masks a tensor of floats: elements where the mask is off become zero and stay so. `None` takes the mask away. Plans
    /// made before must be made again.
    pub fn set_mask(&self, name: &str, mask: Option<Mask>) -> Result<(), EngineError> {
        let mut contents = self.lock();
        let index = contents.slot(name)?;
        let tensor = contents.tensor(index);
        let refused = |found: String, expected: String| EngineError::Feed {
            what: "mask",
            name: name.to_string(),
            found,
            expected,
        };
        if let Some(mask) = mask.as_ref().filter(|mask| mask.len() != tensor.len()) {
            let found = format!("a mask of {} elements", mask.len());
            return Err(refused(found, format!("one of {}", tensor.len())));
        }
        if mask.is_some() && !matches!(tensor.dtype(), DType::F32 | DType::F64) {
            return Err(refused(format!("a tensor of {}", tensor.dtype()), "one of floats".into()));
        }
        let slot = &mut contents.slots[index];
        slot.mask_key = mask.as_ref().map_or(0, key_of);
        slot.mask = mask.map(Arc::new);
        contents.set(name, index, tensor)
    }

    /// How often the named tensor has been written, counting from 1; `None` where there is none of that name.
    pub fn version(&self, name: &str) -> Option<u64> {
        let contents = self.peek();
        Some(contents.slots[*contents.by_name.get(name)?].version)
    }

    /// What is known of the tensors that the graph's parameters are windows of, by name.
    pub(crate) fn facts(&self, graph: &Graph) -> Result<Facts, EngineError> {
        let contents = self.peek();
        let mut facts = HashMap::new();
        for id in graph.parameters() {
            let Some(parameter) = graph.parameter_of(id) else { continue };
            if !facts.contains_key(&parameter.tensor) {
                facts.insert(parameter.tensor.clone(), contents.fact(&parameter.tensor)?);
            }
            let full = &facts[&parameter.tensor];
            let (extents, ty) = (graph.extents(id)?, &graph.value(id).ty);
            let fits = parameter.window.fits(&full.extents)
                && parameter.window.extents(&full.extents) == extents
                && ty.dtype == full.dtype;
            if !fits {
                return Err(EngineError::Graph(GraphError::Feed {
                    what: "parameter",
                    name: parameter.tensor.clone(),
                    found: format!("{}{:?}{}", full.dtype, full.extents, parameter.window),
                    expected: ty.to_string(),
                }));
            }
        }
        Ok(facts)
    }

    /// What of the tensors that the graph's parameters are windows of decides its plan.
    pub(crate) fn keys(&self, graph: &Graph, freeze: &Freeze) -> Result<Vec<StoredKey>, EngineError> {
        let contents = self.peek();
        let mut names: Vec<&str> =
            graph.parameters().filter_map(|id| graph.parameter_of(id)).map(|p| &*p.tensor).collect();
        names.sort_unstable();
        names.dedup();
        let frozen = freeze.frozen(graph);
        let key = |name: &str| {
            let slot = &contents.slots[contents.slot(name)?];
            Ok(StoredKey {
                name: name.to_string(),
                dtype: slot.dtype,
                extents: slot.extents.clone(),
                mask: slot.mask_key,
                frozen: frozen.contains(name).then_some((self.identity, slot.version)),
            })
        };
        names.into_iter().map(key).collect()
    }

    /// The contents, to read.
    pub(crate) fn peek(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents, to write.
    pub(crate) fn lock(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use wattle_kernels::Cpu;
    use wattle_kernels::arena::Span;

    use super::*;
    use crate::packing::{Packing, Weights};

    fn store(names: &[&str]) -> Store {
        let mut parameters = Parameters::new();
        for name in names {
            parameters.insert(*name, Tensor::f32([4, 6], (0..24).map(|i| i as f32).collect()));
        }
        Store::new(&parameters)
    }

    fn packed(name: &str, cpu: &Cpu, transposed: bool) -> Needed {
        let weights = Weights::Matrices { count: 1, k: 4, n: 6, transposed };
        let wanted = Wanted::Packed(Arc::new(Packing::new(cpu.isa, weights)));
        let extents = vec![4, 6];
        Needed { name: name.into(), dtype: DType::F32, extents, mask_key: 0, wanted, written: false }
    }

    #[test]
    fn a_packed_form_is_made_once_a_version_and_shared_by_plans_that_want_the_same() {
        let (store, cpu) = (store(&["w"]), Cpu::new(1).expect("one thread"));
        let (first, second) = (packed("w", &cpu, false), packed("w", &cpu, false));
        let mut contents = store.lock();
        let slot = contents.find(&first).expect("it is there");
        let buffer = contents.refresh(slot, &first, &cpu).expect("it packs");
        assert_eq!((contents.fresh(slot, &second), contents.buffers.len()), (Some(buffer), 1));
        contents.set("w", slot, Arc::new(Tensor::f32([4, 6], vec![2.0; 24]))).expect("it fits");
        assert_eq!(contents.fresh(slot, &second), None, "a write leaves what was packed behind");
        assert_eq!(contents.refresh(slot, &second, &cpu).expect("it packs"), buffer);
        let held =
            contents.buffers[buffer as usize].read::<f32>(Span::of::<f32>(0, 6)).expect("it is as long");
        assert_eq!(held[0], 2.0);
    }

    #[test]
    fn a_packed_form_that_no_plan_holds_gives_its_memory_to_the_next_and_sessions_look_again() {
        let (store, cpu) = (store(&["w"]), Cpu::new(1).expect("one thread"));
        let mut contents = store.lock();
        let first = packed("w", &cpu, false);
        let slot = contents.find(&first).expect("it is there");
        contents.refresh(slot, &first, &cpu).expect("it packs");
        let (kept, revision) = (first.clone(), contents.revision);
        drop(first);
        contents.refresh(slot, &packed("w", &cpu, true), &cpu).expect("it packs");
        assert_eq!((contents.buffers.len(), contents.revision), (2, revision), "the first is still held");
        assert!(contents.fresh(slot, &kept).is_some());
        contents.refresh(slot, &packed("w", &cpu, false), &cpu).expect("it packs");
        drop(kept);
        for turn in 0..10 {
            contents.refresh(slot, &packed("w", &cpu, turn % 2 == 0), &cpu).expect("it packs");
        }
        assert_eq!(contents.buffers.len(), 2, "as many as were in use at once");
        let other = Weights::Matrices { count: 2, k: 2, n: 6, transposed: false };
        let wanted = Wanted::Packed(Arc::new(Packing::new(cpu.isa, other)));
        let before = contents.revision;
        contents.refresh(slot, &Needed { wanted, ..packed("w", &cpu, true) }, &cpu).expect("it packs");
        assert_eq!((contents.buffers.len(), contents.revision), (2, before + 1));
    }
}
