//! Parameters: windows on named tensors that live outside the graph, so that graphs can share them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::mask::Mask;
use crate::tensor::{Tensor, each_index, strides};

/// What a parameter is for, which decides who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows gradients.
    Trainable,
    /// Written by the forward pass (batch-norm statistics) or an optimiser (momentum); no gradient.
    State,
}

/// A view of a shared tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Name of the tensor in [`Parameters`].
    pub tensor: String,
    /// The part of it that the graph sees.
    pub window: Window,
    /// Who may change it.
    pub role: Role,
}

impl Parameter {
    /// The whole of a trainable tensor.
    pub fn trainable(tensor: impl Into<String>) -> Parameter {
        Parameter { tensor: tensor.into(), window: Window::full(), role: Role::Trainable }
    }

    /// The whole of a state tensor.
    pub fn state(tensor: impl Into<String>) -> Parameter {
        Parameter { tensor: tensor.into(), window: Window::full(), role: Role::State }
    }
}

/// The part of one axis that a window keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AxisWindow {
    /// Every index.
    All,
    /// `start..end`.
    Range(usize, usize),
    /// The listed indices, in this order.
    Indices(Vec<usize>),
}

impl AxisWindow {
    /// Whether some index is in both; of an axis that has at least one.
    fn meets(&self, other: &AxisWindow) -> bool {
        use AxisWindow::{All, Indices, Range};
        match (self, other) {
            (All, All) => true,
            (All, Range(start, end)) | (Range(start, end), All) => start < end,
            (All, Indices(list)) | (Indices(list), All) => !list.is_empty(),
            (Range(a, b), Range(c, d)) => a.max(c) < b.min(d),
            (Range(start, end), Indices(list)) | (Indices(list), Range(start, end)) => {
                list.iter().any(|i| (start..end).contains(&i))
            }
            (Indices(a), Indices(b)) => a.iter().any(|i| b.contains(i)),
        }
    }
}

/// A per-axis selection of a tensor; axes not listed are kept whole.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Window(Vec<AxisWindow>);

impl Window {
    /// Keeps everything.
    pub fn full() -> Window {
        Window::default()
    }

    /// One selection per leading axis.
    pub fn new(axes: Vec<AxisWindow>) -> Window {
        Window(axes)
    }

    /// Whether the window keeps everything.
    pub fn is_full(&self) -> bool {
        self.0.iter().all(|a| *a == AxisWindow::All)
    }

    /// One selection per leading axis; axes beyond the last are kept whole.
    pub fn axes(&self) -> &[AxisWindow] {
        &self.0
    }

    /// Whether the window lies within a tensor of shape `full`.
    pub fn fits(&self, full: &[usize]) -> bool {
        let inside = |(window, &n): (&AxisWindow, &usize)| match window {
            AxisWindow::All => true,
            AxisWindow::Range(start, end) => start <= end && *end <= n,
            AxisWindow::Indices(list) => list.iter().all(|&i| i < n),
        };
        self.0.len() <= full.len() && self.0.iter().zip(full).all(inside)
    }

    /// Whether the window shows an element more than once.
    pub fn repeats(&self) -> bool {
        self.0.iter().any(|axis| match axis {
            AxisWindow::Indices(list) => list.iter().collect::<BTreeSet<_>>().len() < list.len(),
            AxisWindow::All | AxisWindow::Range(..) => false,
        })
    }

    /// Whether the two windows of one tensor have an element in common.
    pub fn meets(&self, other: &Window) -> bool {
        let axes = self.0.len().max(other.0.len());
        (0..axes).all(|axis| {
            let [a, b] = [self, other].map(|w| w.0.get(axis).unwrap_or(&AxisWindow::All));
            a.meets(b)
        })
    }

    /// Extents of the window of a tensor of shape `full`.
    pub fn extents(&self, full: &[usize]) -> Vec<usize> {
        let kept = |(axis, &n): (usize, &usize)| match self.0.get(axis) {
            None | Some(AxisWindow::All) => n,
            Some(AxisWindow::Range(start, end)) => end.saturating_sub(*start),
            Some(AxisWindow::Indices(list)) => list.len(),
        };
        full.iter().enumerate().map(kept).collect()
    }

    /// Row-major positions in a tensor of shape `full`, one for each element of the window; `None` when the
    /// window reaches outside the tensor.
    pub fn positions(&self, full: &[usize]) -> Option<Vec<usize>> {
        let (extents, strides) = (self.extents(full), strides(full));
        if !self.fits(full) {
            return None;
        }
        let mut positions = Vec::with_capacity(extents.iter().product());
        each_index(&extents, |index| {
            let along = |axis: usize, i: usize| match self.0.get(axis) {
                None | Some(AxisWindow::All) => i,
                Some(AxisWindow::Range(start, _)) => start + i,
                Some(AxisWindow::Indices(list)) => list[i],
            };
            positions.push(index.iter().enumerate().map(|(a, &i)| along(a, i) * strides[a]).sum());
        });
        Some(positions)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_full() {
            return Ok(());
        }
        let texts: Vec<String> = self
            .0
            .iter()
            .map(|a| match a {
                AxisWindow::All => ":".to_string(),
                AxisWindow::Range(start, end) => format!("{start}:{end}"),
                AxisWindow::Indices(list) => format!("{list:?}"),
            })
            .collect();
        write!(f, " window [{}]", texts.join(", "))
    }
}

/// Named tensors and the masks some of them carry.
///
/// Invariant: where a tensor has a mask, it is exactly +0 wherever the mask is off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    tensors: BTreeMap<String, Arc<Tensor>>,
    masks: BTreeMap<String, Mask>,
}

impl Parameters {
    /// No tensors.
    pub fn new() -> Parameters {
        Parameters::default()
    }

    /// Names and tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Tensor>)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Tensor>> {
        self.tensors.get(name)
    }

    /// The mask of the tensor of this name, if it has one.
    pub fn mask(&self, name: &str) -> Option<&Mask> {
        self.masks.get(name)
    }

    /// Names and masks, sorted by name.
    pub fn masks(&self) -> impl Iterator<Item = (&str, &Mask)> {
        self.masks.iter().map(|(name, mask)| (name.as_str(), mask))
    }

    /// Sets a tensor; under its mask, if it has one of that size, the elements become zero.
    pub fn insert(&mut self, name: impl Into<String>, tensor: impl Into<Arc<Tensor>>) {
        let (name, mut tensor) = (name.into(), tensor.into());
        match self.masks.get(&name) {
            Some(mask) if mask.len() == tensor.len() => mask.apply(Arc::make_mut(&mut tensor)),
            Some(_) => drop(self.masks.remove(&name)),
            None => {}
        }
        self.tensors.insert(name, tensor);
    }

    /// Masks a tensor: elements where the mask is off become zero and stay so. Returns whether there is a
    /// tensor of that name and size.
    pub fn set_mask(&mut self, name: &str, mask: Mask) -> bool {
        match self.tensors.get_mut(name) {
            Some(tensor) if tensor.len() == mask.len() => {
                mask.apply(Arc::make_mut(tensor));
                self.masks.insert(name.to_string(), mask);
                true
            }
            _ => false,
        }
    }

    /// Removes all masks; the zeros stay until training moves them.
    pub fn clear_masks(&mut self) {
        self.masks.clear();
    }

    /// The part of a tensor that `parameter` sees; `None` when there is no such tensor or it is too small.
    pub fn view(&self, parameter: &Parameter) -> Option<Arc<Tensor>> {
        let tensor = self.get(&parameter.tensor)?;
        if parameter.window.is_full() {
            return Some(tensor.clone());
        }
        let source: Vec<_> = parameter.window.positions(tensor.shape())?.into_iter().map(Some).collect();
        Some(Arc::new(tensor.take(parameter.window.extents(tensor.shape()), &source)))
    }

    /// Writes `part` back through the window of `parameter`. Returns whether it fitted.
    pub fn write_view(&mut self, parameter: &Parameter, part: Tensor) -> bool {
        let Some(tensor) = self.get(&parameter.tensor) else { return false };
        let full = tensor.shape().to_vec();
        let Some(positions) = parameter.window.positions(&full) else { return false };
        if part.dtype() != tensor.dtype() || part.shape() != parameter.window.extents(&full) {
            return false;
        }
        let whole = if parameter.window.is_full() {
            part
        } else {
            let mut values = tensor.to_f64().into_owned();
            for (position, x) in positions.into_iter().zip(part.to_f64().iter()) {
                values[position] = *x;
            }
            Tensor::from_f64(part.dtype(), full, values)
        };
        self.insert(parameter.tensor.clone(), whole);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> Parameter {
        let window = Window::new(vec![AxisWindow::Range(0, 2), AxisWindow::Indices(vec![2, 0])]);
        Parameter { tensor: "w".into(), window, role: Role::Trainable }
    }

    #[test]
    fn a_window_reads_and_writes_only_its_part() {
        let mut params = Parameters::new();
        params.insert("w", Tensor::f32([3, 3], (0..9).map(|x| x as f32).collect()));
        let view = params.view(&prefix()).unwrap();
        assert_eq!((view.shape(), view.as_f32().unwrap()), (&[2, 2][..], &[2.0, 0.0, 5.0, 3.0][..]));
        assert!(params.write_view(&prefix(), Tensor::f32([2, 2], vec![-1.0; 4])));
        let expected = [-1.0, 1.0, -1.0, -1.0, 4.0, -1.0, 6.0, 7.0, 8.0];
        assert_eq!(params.get("w").unwrap().as_f32().unwrap(), &expected);
    }

    #[test]
    fn a_masked_tensor_is_zero_where_the_mask_is_off_whatever_is_written() {
        let mut params = Parameters::new();
        params.insert("w", Tensor::f32([3], vec![1.0, 2.0, 3.0]));
        assert!(params.set_mask("w", Mask::from_bools([true, false, true])));
        assert_eq!(params.get("w").unwrap().as_f32().unwrap(), &[1.0, 0.0, 3.0]);
        params.insert("w", Tensor::f32([3], vec![4.0, -5.0, 6.0]));
        assert_eq!(params.get("w").unwrap().as_f32().unwrap(), &[4.0, 0.0, 6.0]);
    }

    #[test]
    fn windows_meet_where_they_have_an_element_in_common() {
        use AxisWindow::{All, Indices, Range};
        let window = |axes: &[AxisWindow]| Window::new(axes.to_vec());
        let left = window(&[All, Range(0, 2)]);
        assert!(left.meets(&Window::full()) && Window::full().meets(&left));
        assert!(left.meets(&window(&[Range(3, 4), Range(1, 3)])));
        assert!(!left.meets(&window(&[All, Range(2, 3)])));
        assert!(left.meets(&window(&[All, Indices(vec![5, 1])])));
        assert!(!left.meets(&window(&[All, Indices(vec![5, 2])])));
        assert!(!left.meets(&window(&[Range(1, 1)])), "an empty window meets nothing");
    }

    #[test]
    fn a_window_outside_its_tensor_is_refused() {
        let mut params = Parameters::new();
        params.insert("w", Tensor::f32([1, 3], vec![0.0; 3]));
        assert!(params.view(&prefix()).is_none());
    }
}
