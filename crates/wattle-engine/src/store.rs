//! Parameters that outlive sessions: named tensors with their masks and versions, shared by all who hold a handle.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use wattle_graph::{DType, Graph, GraphError, Mask, Parameters, Tensor};
use wattle_kernels::Cpu;
use wattle_kernels::arena::{Arena, Span};

use crate::bytes;
use crate::choices::Freeze;
use crate::error::EngineError;
use crate::kept::Kept;
use crate::layout::Layout;
use crate::packing::Packing;

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

/// The tensors behind a handle.
#[derive(Default)]
pub(crate) struct Contents {
    slots: Vec<Slot>,
    by_name: HashMap<String, usize>,
    /// Memory of all forms of all tensors that are in use.
    pub buffers: Vec<Arena>,
    /// Grows with every write of any tensor.
    pub revision: u64,
}

/// One tensor, in as many forms as are in use.
struct Slot {
    dtype: DType,
    extents: Vec<usize>,
    mask: Option<Arc<Mask>>,
    /// Tells masks apart by content; 0 for none.
    mask_key: u64,
    /// One more with every write.
    version: u64,
    /// As a tensor, while that is what the tensor is: shared with whoever gave it.
    plain: Option<Arc<Tensor>>,
    /// Row-major.
    whole: Option<Form>,
    /// The kept elements alone.
    kept: Option<(Arc<Kept>, Form)>,
    /// Packed, in the ways that plans ask for; one that no plan holds any more gives its memory to the next.
    packed: Vec<(Arc<Packing>, Form)>,
}

/// Content in one form.
#[derive(Clone, Copy)]
struct Form {
    buffer: u32,
    /// The version of the tensor that it holds.
    version: u64,
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

/// In which form a plan reads or writes a stored tensor.
#[derive(Clone)]
pub(crate) enum Wanted {
    /// Row-major.
    Whole,
    /// The kept elements alone.
    Kept(Arc<Kept>),
    /// As kernels read it; never written.
    Packed(Arc<Packing>),
}

/// A stored tensor that a plan reads or writes, and in which form.
#[derive(Clone)]
pub(crate) struct Needed {
    pub name: String,
    pub dtype: DType,
    pub extents: Vec<usize>,
    /// The mask that the plan was made for.
    pub mask_key: u64,
    pub wanted: Wanted,
    pub written: bool,
}

impl Needed {
    /// Elements of the pattern that it is stored by, if it is.
    pub fn pattern_len(&self) -> usize {
        match &self.wanted {
            Wanted::Kept(kept) => kept.len(),
            Wanted::Whole | Wanted::Packed(_) => 0,
        }
    }
}

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

impl Contents {
    fn add(&mut self, name: &str, mut tensor: Arc<Tensor>, mask: Option<Mask>) {
        if let Some(mask) = &mask {
            masked(&mut tensor, mask);
        }
        self.by_name.insert(name.to_string(), self.slots.len());
        self.slots.push(Slot {
            dtype: tensor.dtype(),
            extents: tensor.shape().to_vec(),
            mask_key: mask.as_ref().map_or(0, key_of),
            mask: mask.map(Arc::new),
            version: 1,
            plain: Some(tensor),
            whole: None,
            kept: None,
            packed: vec![],
        });
        self.revision += 1;
    }

    fn set(&mut self, name: &str, index: usize, mut tensor: Arc<Tensor>) -> Result<(), EngineError> {
        let slot = &mut self.slots[index];
        if tensor.dtype() != slot.dtype || tensor.shape() != slot.extents {
            return Err(EngineError::Graph(GraphError::Feed {
                what: "parameter",
                name: name.to_string(),
                found: format!("{}{:?}", tensor.dtype(), tensor.shape()),
                expected: format!("{}{:?}", slot.dtype, slot.extents),
            }));
        }
        if let Some(mask) = &slot.mask {
            masked(&mut tensor, mask);
        }
        slot.version += 1;
        slot.plain = Some(tensor);
        self.revision += 1;
        Ok(())
    }

    /// The slot of the named tensor.
    pub fn slot(&self, name: &str) -> Result<usize, EngineError> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let mut names: Vec<_> = self.by_name.keys().map(String::as_str).collect();
            names.sort_unstable();
            EngineError::Feed {
                what: "parameter",
                name: name.to_string(),
                found: "no stored tensor of that name".into(),
                expected: format!("one of: {}", names.join(", ")),
            }
        })
    }

    fn fact(&self, name: &str) -> Result<Fact, EngineError> {
        let slot = &self.slots[self.slot(name)?];
        Ok(Fact {
            dtype: slot.dtype,
            extents: slot.extents.clone(),
            mask: slot.mask.clone(),
            mask_key: slot.mask_key,
        })
    }

    fn tensor(&self, index: usize) -> Arc<Tensor> {
        let slot = &self.slots[index];
        if let Some(tensor) = &slot.plain {
            return tensor.clone();
        }
        let bytes_of = |form: Form| -> &[u8] {
            let buffer = &self.buffers[form.buffer as usize];
            buffer.read(Span::in_arena(0, buffer.bytes())).unwrap_or_default()
        };
        match (slot.whole, &slot.kept) {
            (Some(form), _) if form.version == slot.version => {
                Arc::new(bytes::tensor(slot.dtype, &slot.extents, bytes_of(form)))
            }
            (_, Some((kept, form))) if form.version == slot.version => {
                let mut whole = vec![0.0; slot.extents.iter().product()];
                kept.scatter(bytemuck::cast_slice(bytes_of(*form)), &mut whole);
                Arc::new(Tensor::f32(slot.extents.clone(), whole))
            }
            _ => unreachable!("one form of a tensor is always up to date"),
        }
    }

    /// The slot of a tensor that a plan needs, if it is what the plan was made for.
    pub fn find(&self, needed: &Needed) -> Result<usize, EngineError> {
        let index = self.slot(&needed.name)?;
        let slot = &self.slots[index];
        if slot.dtype != needed.dtype || slot.extents != needed.extents {
            return Err(EngineError::Feed {
                what: "parameter",
                name: needed.name.clone(),
                found: format!("{}{:?}", slot.dtype, slot.extents),
                expected: format!("{}{:?}", needed.dtype, needed.extents),
            });
        }
        self.check_mask(index, needed)?;
        Ok(index)
    }

    /// Whether the tensor at `index`, once found there, is still what the plan was made for: name and type never change.
    pub fn check_mask(&self, index: usize, needed: &Needed) -> Result<(), EngineError> {
        if self.slots[index].mask_key == needed.mask_key {
            return Ok(());
        }
        Err(EngineError::Feed {
            what: "parameter",
            name: needed.name.clone(),
            found: "another mask than the plan was made for".into(),
            expected: "a plan made after the mask was set: compile the graph again".into(),
        })
    }

    /// The buffer that holds the needed form, where that is up to date.
    pub fn fresh(&self, index: usize, needed: &Needed) -> Option<u32> {
        let slot = &self.slots[index];
        let form = slot.form(&needed.wanted)?;
        (form.version == slot.version).then_some(form.buffer)
    }

    /// Brings the needed form up to date; returns its buffer.
    pub fn refresh(&mut self, index: usize, needed: &Needed, cpu: &Cpu) -> Result<u32, EngineError> {
        if let Wanted::Packed(wanted) = &needed.wanted {
            self.slots[index].adopt(wanted);
        }
        if let Some(buffer) = self.fresh(index, needed) {
            return Ok(buffer);
        }
        let bytes = match &needed.wanted {
            Wanted::Whole => needed.extents.iter().product::<usize>() * needed.dtype.size(),
            Wanted::Kept(kept) => kept.len() * size_of::<f32>(),
            Wanted::Packed(packing) => packing.len() * size_of::<f32>(),
        };
        let buffer = self.room(index, &needed.wanted, bytes)?;
        let span = Span::in_arena(0, bytes);
        let not_floats = || EngineError::Defect(format!("`{}` is not of f32", needed.name));
        match &needed.wanted {
            Wanted::Whole => {
                let tensor = self.tensor(index);
                let to = self.buffers[buffer as usize].write::<u8>(span)?;
                to.copy_from_slice(&bytes::of(&tensor, Layout::RowMajor));
            }
            Wanted::Kept(kept) => {
                let tensor = self.tensor(index);
                kept.gather(
                    tensor.as_f32().ok_or_else(not_floats)?,
                    self.buffers[buffer as usize].write(span)?,
                );
            }
            Wanted::Packed(packing) => match self.slots[index].whole_where_fresh() {
                // Packed from where a run has written it: an update and a run in turns allocate nothing.
                Some(whole) => {
                    let pair = self.buffers.get_disjoint_mut([whole as usize, buffer as usize]);
                    let [whole, to] =
                        pair.map_err(|_| EngineError::Defect("a form is packed into itself".into()))?;
                    let whole = whole.read(Span::in_arena(0, whole.bytes()))?;
                    packing.pack(cpu, whole, to.write(span)?);
                }
                None => {
                    let tensor = self.tensor(index);
                    let whole = tensor.as_f32().ok_or_else(not_floats)?;
                    packing.pack(cpu, whole, self.buffers[buffer as usize].write(span)?);
                }
            },
        }
        let slot = &mut self.slots[index];
        let form = Form { buffer, version: slot.version };
        match &needed.wanted {
            Wanted::Whole => slot.whole = Some(form),
            Wanted::Kept(kept) => slot.kept = Some((kept.clone(), form)),
            Wanted::Packed(packing) => match slot.packed.iter_mut().find(|(_, f)| f.buffer == buffer) {
                Some((_, old)) => *old = form,
                None => slot.packed.push((packing.clone(), form)),
            },
        }
        Ok(buffer)
    }

    /// A buffer of so many bytes for a form of a tensor: the one that it had, one that no plan needs any more, or a new one.
    fn room(&mut self, index: usize, wanted: &Wanted, bytes: usize) -> Result<u32, EngineError> {
        let slot = &mut self.slots[index];
        let old = match wanted {
            Wanted::Kept(_) => slot.kept.as_ref().map(|(_, form)| form.buffer),
            Wanted::Packed(_) if slot.form(wanted).is_none() => {
                // Sessions that found it there may run on: they are to find everything again.
                let found = slot.packed.iter().position(|(packing, _)| unused(packing));
                self.revision += u64::from(found.is_some());
                found.map(|at| slot.packed.swap_remove(at).1.buffer)
            }
            _ => slot.form(wanted).map(|form| form.buffer),
        };
        let buffer = match old {
            Some(buffer) => buffer,
            None => {
                self.buffers.push(Arena::try_new(bytes)?);
                (self.buffers.len() - 1) as u32
            }
        };
        let arena = &mut self.buffers[buffer as usize];
        if arena.bytes() != bytes {
            *arena = Arena::try_new(bytes)?;
        }
        Ok(buffer)
    }

    /// Notes that a run has written the needed form of a tensor: it is a new version, and other forms are out of date.
    pub fn wrote(&mut self, index: usize, needed: &Needed) {
        let slot = &mut self.slots[index];
        slot.version += 1;
        slot.plain = None;
        let form = match &needed.wanted {
            Wanted::Whole => slot.whole.as_mut(),
            Wanted::Kept(_) => slot.kept.as_mut().map(|(_, form)| form),
            Wanted::Packed(_) => None,
        };
        if let Some(form) = form {
            form.version = slot.version;
        }
    }
}

impl Slot {
    /// The tensor in a form, of whatever version.
    fn form(&self, wanted: &Wanted) -> Option<Form> {
        match wanted {
            Wanted::Whole => self.whole,
            Wanted::Kept(wanted) => {
                self.kept.as_ref().filter(|(kept, _)| kept.alike(wanted)).map(|(_, form)| *form)
            }
            Wanted::Packed(wanted) => {
                let same = |held: &Arc<Packing>| Arc::ptr_eq(held, wanted) || held.alike(wanted);
                self.packed.iter().find(|(held, _)| same(held)).map(|(_, form)| *form)
            }
        }
    }

    /// Keeps a packed form for a plan that needs it, where the one that asked for it first is gone.
    fn adopt(&mut self, wanted: &Arc<Packing>) {
        let held = self.packed.iter_mut().find(|(held, _)| unused(held) && held.alike(wanted));
        if let Some((held, _)) = held {
            *held = wanted.clone();
        }
    }

    /// The buffer with the whole tensor, where that is up to date.
    fn whole_where_fresh(&self) -> Option<u32> {
        self.whole.filter(|form| form.version == self.version).map(|form| form.buffer)
    }
}

/// Whether no plan holds it: only the store does.
fn unused(packing: &Arc<Packing>) -> bool {
    Arc::strong_count(packing) == 1
}

fn masked(tensor: &mut Arc<Tensor>, mask: &Mask) {
    mask.apply(Arc::make_mut(tensor));
}

/// A number that tells masks apart by what they keep.
fn key_of(mask: &Mask) -> u64 {
    let mut hasher = DefaultHasher::new();
    mask.to_bytes().hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::Weights;

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
