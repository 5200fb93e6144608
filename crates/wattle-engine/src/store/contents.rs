//! The tensors behind a store, each in the forms that plans ask for, brought up to date when a version is read.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use wattle_graph::{DType, GraphError, Mask, Tensor};
use wattle_kernels::Cpu;
use wattle_kernels::arena::{Arena, Span};

use super::Fact;
use crate::bytes;
use crate::error::EngineError;
use crate::kept::Kept;
use crate::layout::Layout;
use crate::packing::Packing;

/// The tensors behind a handle.
#[derive(Default)]
pub(crate) struct Contents {
    pub(super) slots: Vec<Slot>,
    pub(super) by_name: HashMap<String, usize>,
    /// Memory of all forms of all tensors that are in use.
    pub buffers: Vec<Arena>,
    /// Grows with every write of any tensor.
    pub revision: u64,
}

/// One tensor, in as many forms as are in use.
pub(super) struct Slot {
    pub dtype: DType,
    pub extents: Vec<usize>,
    pub mask: Option<Arc<Mask>>,
    /// Tells masks apart by content; 0 for none.
    pub mask_key: u64,
    /// One more with every write.
    pub version: u64,
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

impl Contents {
    pub(super) fn add(&mut self, name: &str, mut tensor: Arc<Tensor>, mask: Option<Mask>) {
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

    pub(super) fn set(
        &mut self,
        name: &str,
        index: usize,
        mut tensor: Arc<Tensor>,
    ) -> Result<(), EngineError> {
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

    pub(super) fn fact(&self, name: &str) -> Result<Fact, EngineError> {
        let slot = &self.slots[self.slot(name)?];
        Ok(Fact {
            dtype: slot.dtype,
            extents: slot.extents.clone(),
            mask: slot.mask.clone(),
            mask_key: slot.mask_key,
        })
    }

    pub(super) fn tensor(&self, index: usize) -> Arc<Tensor> {
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
pub(super) fn key_of(mask: &Mask) -> u64 {
    let mut hasher = DefaultHasher::new();
    mask.to_bytes().hash(&mut hasher);
    hasher.finish().max(1)
}
