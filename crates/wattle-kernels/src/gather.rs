//! Gathering rows of a table (embeddings) and adding gradients back into it.

use crate::Cpu;

/// An index outside the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index {index} at position {position} is outside a table of {rows} rows")]
pub struct IndexError {
    /// Which index.
    pub position: usize,
    /// Its value.
    pub index: i64,
    /// Rows of the table.
    pub rows: usize,
}

/// Negative indices count from the end.
fn row_of(index: i64, rows: usize) -> usize {
    if index < 0 { (index + rows as i64) as usize } else { index as usize }
}

fn check(indices: &[i64], rows: usize) -> Result<(), IndexError> {
    let valid = -(rows as i64)..rows as i64;
    match indices.iter().enumerate().find(|(_, i)| !valid.contains(i)) {
        Some((position, &index)) => Err(IndexError { position, index, rows }),
        None => Ok(()),
    }
}

/// `y[i] = table[indices[i]]` for rows of `width` elements.
pub fn gather_rows<T: Copy + Send + Sync>(
    cpu: &Cpu,
    width: usize,
    table: &[T],
    indices: &[i64],
    y: &mut [T],
) -> Result<(), IndexError> {
    assert_eq!(y.len(), width * indices.len());
    if width == 0 {
        return Ok(());
    }
    assert!(table.len().is_multiple_of(width), "a table of rows of {width} elements");
    let rows = table.len() / width;
    check(indices, rows)?;
    let count = (16 * 1024 / width).max(1);
    cpu.threads.for_each_piece(y, count * width, |i, y| {
        for (y, &index) in y.chunks_exact_mut(width).zip(&indices[i * count..]) {
            y.copy_from_slice(&table[row_of(index, rows) * width..][..width]);
        }
    });
    Ok(())
}

/// `table[indices[i]] += dy[i]`. Each part of the table belongs to one task, which visits the indices in order, so sums
/// do not depend on the threads.
pub fn scatter_add_rows(
    cpu: &Cpu,
    width: usize,
    indices: &[i64],
    dy: &[f32],
    table: &mut [f32],
) -> Result<(), IndexError> {
    assert_eq!(dy.len(), width * indices.len());
    if width == 0 {
        return Ok(());
    }
    assert!(table.len().is_multiple_of(width), "a table of rows of {width} elements");
    let rows = table.len() / width;
    check(indices, rows)?;
    let part = rows.div_ceil(cpu.threads.count()).max(1);
    cpu.threads.for_each_piece(table, part * width, |i, table| {
        let mine = i * part..i * part + table.len() / width;
        for (&index, dy) in indices.iter().zip(dy.chunks_exact(width)) {
            let row = row_of(index, rows);
            if mine.contains(&row) {
                let row = &mut table[(row - mine.start) * width..][..width];
                row.iter_mut().zip(dy).for_each(|(t, d)| *t += d);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, cpus};

    #[test]
    fn rows_are_gathered_and_added_back_in_order() {
        let numbers = &mut Numbers::new(4);
        let (rows, width) = (9, 5);
        let table = numbers.take(rows * width);
        let indices = [3, 0, -1, 3, 8, 4, 3];
        let dy = numbers.take(indices.len() * width);
        let mut want = vec![0.0f32; table.len()];
        for (i, &index) in indices.iter().enumerate() {
            let row = if index < 0 { 8 } else { index as usize };
            (0..width).for_each(|k| want[row * width + k] += dy[i * width + k]);
        }
        for cpu in cpus().iter().flatten() {
            let mut y = vec![0.0; dy.len()];
            gather_rows(cpu, width, &table, &indices, &mut y).unwrap();
            assert_eq!(y[..5], table[15..20]);
            assert_eq!(y[10..15], table[40..45]);
            let mut sums = vec![0.0; table.len()];
            scatter_add_rows(cpu, width, &indices, &dy, &mut sums).unwrap();
            assert_eq!(sums, want);
            let bad = gather_rows(cpu, width, &table, &[9], &mut y[..5]);
            assert_eq!(bad, Err(IndexError { position: 0, index: 9, rows: 9 }));
        }
    }
}
