use std::time::Instant;
use wattle_accel::*;
use crate::published::*;
#[test]
fn scratch() {
    let arch = Architecture::named("eyeriss-v2").unwrap();
    let table = arch.table().unwrap();
    let counts = channel_counts();
    let mut total = 0.0; let mut e = 0.0;
    for layer in mobilenet() {
        let n: usize = layer.name[1..].parse().unwrap();
        let layer = match counts.get(&layer.name) { Some(c) => with_counts(layer, c), None => {
            let share = LANE_CYCLES.iter().find(|l| l.0 == n).map_or(0.45, |l| l.1 as f64 / layer.macs());
            layer.with_sparsity(Sparsity::uniform(share.sqrt()), Sparsity::uniform(share.sqrt())) } };
        let t = Instant::now();
        let m = map_best_format(&arch, &layer, &table, Objective::Edp, Effort::default()).unwrap();
        let c = m.cost.cycles;
        total += c.total(); e += m.cost.energy.chip();
        println!("{} {:.0} ideal {:.0} {:?} comp {:.0} exp {:.0} start {:.0} | {:?} {} br {} op {} ev {} {:?} {}", layer.name, c.total(), layer.effective_macs()/384.0, c.bound(), c.compute, c.exposed_weights, c.start, m.format, m.mapping, m.branches, m.opened, m.evaluated, t.elapsed(), m.proven());
        let (i, w) = made_up(&layer, 1); let t = Instant::now();
        let sim = simulate(&arch, &layer, &table, m.format, &m.mapping, &i, &w).unwrap();
        println!("   sim {:.0} model/sim {:.3} in {:?}", sim.cycles, c.total()/sim.cycles, t.elapsed());
        println!("   {:?}", m.cost.energy.parts().map(|p| (p.1/1e3) as u64));
    }
    println!("total {total:.0} -> {:.1} inf/s, {:.1} inf/J chip", 200e6/total, 1e12/e);
}
