//! Houses: made-up days of made-up houses, as a source of batches.

use wattle_data::random::{Purpose, Stream};
use wattle_data::{Batch, ColumnInfo, Result, Source};
use wattle_graph::DType;

/// Days of houses: `history` (24 hours of demand), `weather` (4 numbers), and `demand_tomorrow`, which is random: the same day
/// twice asks for different power.
pub struct Houses {
    /// Days in a batch.
    pub batch: usize,
    /// Decides everything.
    pub seed: u64,
    columns: [ColumnInfo; 3],
}

impl Houses {
    /// Batches of `batch` days.
    pub fn new(batch: usize, seed: u64) -> Houses {
        let columns = [("history", 24), ("weather", 4), ("demand_tomorrow", 1)];
        Houses { batch, seed, columns: columns.map(|(name, n)| ColumnInfo::new(name, DType::F32, [n])) }
    }
}

impl Source for Houses {
    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    fn epoch_len(&self) -> u64 {
        50
    }

    fn fill(&self, step: u64, batch: &mut Batch) -> Result<()> {
        batch.shape_as(&self.columns, self.batch);
        (batch.step, batch.epoch, batch.real) = (step, step / self.epoch_len(), self.batch);
        // The batch of a step follows from the seed and the step alone.
        let mut random = Stream::new(self.seed, Purpose::Augmentation, &[step]);
        let mut number = |low, high| random.uniform_between(low, high) as f32;
        for day in 0..self.batch {
            let (phase, level) = (number(0.0, std::f64::consts::TAU), number(0.5, 1.5));
            let weather = [0; 4].map(|_| number(-1.0, 1.0));
            let history: Vec<f32> =
                (0..24).map(|hour| level * (hour as f32 * 0.26 + phase).sin() + number(-0.1, 0.1)).collect();
            let demand = level * (0.5 * phase).cos() + 0.5 * weather[0] * weather[1] + number(-0.5, 0.5);
            for (column, values) in batch.columns.iter_mut().zip([&history[..], &weather, &[demand]]) {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_ne_bytes()).collect();
                column.bytes[day * bytes.len()..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("tutorial.houses 1 batch={} seed={}", self.batch, self.seed)
    }
}
