//! How the axes of a value are ordered in memory.

use wattle_graph::strides;

/// Order of axes in memory; logical shapes are always those of the graph (ONNX order, channels second).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As in the graph: the last axis is contiguous.
    RowMajor,
    /// Axis 1 (channels) is moved last, so that kernels run along channels: `[N, C, H, W]` is stored as NHWC.
    ChannelsLast,
    /// The kept elements of a masked parameter alone, in the order of its pattern.
    Kept,
}

impl Layout {
    /// The logical axis at each position in memory, outermost first.
    pub fn order(self, rank: usize) -> Vec<usize> {
        match self {
            Layout::ChannelsLast if rank > 2 => {
                let spatial = 2..rank;
                [0].into_iter().chain(spatial).chain([1]).collect()
            }
            _ => (0..rank).collect(),
        }
    }

    /// Extents in the order of memory.
    pub fn physical(self, extents: &[usize]) -> Vec<usize> {
        self.order(extents.len()).into_iter().map(|axis| extents[axis]).collect()
    }

    /// Position in memory order of a logical axis.
    pub fn position(self, axis: usize, rank: usize) -> usize {
        match self {
            Layout::ChannelsLast if rank > 2 => match axis {
                0 => 0,
                1 => rank - 1,
                axis => axis - 1,
            },
            _ => axis,
        }
    }

    /// Stride in elements of each logical axis.
    pub fn strides(self, extents: &[usize]) -> Vec<usize> {
        let physical = strides(&self.physical(extents));
        (0..extents.len()).map(|axis| physical[self.position(axis, extents.len())]).collect()
    }

    /// Whether both layouts put the elements of a value of these extents in the same order.
    pub fn same_bytes(self, other: Layout, extents: &[usize]) -> bool {
        if self == other {
            return true;
        }
        if self == Layout::Kept || other == Layout::Kept {
            return false;
        }
        if extents.len() < 3 {
            return true;
        }
        extents[1] == 1 || extents[2..].iter().all(|&n| n == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_last_moves_axis_one_to_the_end() {
        assert_eq!(Layout::ChannelsLast.physical(&[2, 3, 4, 5]), [2, 4, 5, 3]);
        assert_eq!(Layout::ChannelsLast.strides(&[2, 3, 4, 5]), [60, 1, 15, 3]);
        assert_eq!(Layout::ChannelsLast.physical(&[2, 3]), [2, 3]);
    }

    #[test]
    fn pooled_images_need_no_reordering() {
        assert!(Layout::RowMajor.same_bytes(Layout::ChannelsLast, &[2, 64, 1, 1]));
        assert!(!Layout::RowMajor.same_bytes(Layout::ChannelsLast, &[2, 64, 1, 2]));
    }
}
