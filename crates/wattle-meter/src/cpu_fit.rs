//! Where the numbers of `cpu-clock/1` come from, and how far they hold: a fit to published RAPL sweeps, and the same fit
//! with one processor left out at a time.
//!
//! `watts = threads x GHz x (a + b load)`, by least squares of logarithms, every folder of the sweeps weighing the same.
//! The interval for a processor that was not seen has, in logarithms, the half width
//! `t(k-1) sqrt(between (1 + 1/k) + within)` over `k` processors: the spread of their means, and that within each.
//!
//! The sweeps are facts read from the load profiles in CodeCarbon's repository (MIT),
//! `codecarbon/data/hardware/cpu_load_profiling`: energy over duration, some 30 s a point. Folder E5-1240 names the same
//! processor as E3-1240 but reads twice as much; it is kept.

/// One point of a sweep.
pub(crate) struct SweepPoint {
    folder: String,
    pub(crate) cpu: String,
    pub(crate) threads: f64,
    /// 0 to 1.
    pub(crate) load: f64,
    gigahertz: f64,
    pub(crate) watts: f64,
}

/// All of them.
pub(crate) fn sweeps() -> Vec<SweepPoint> {
    let rows = include_str!("rapl_sweeps.csv").lines().skip(1);
    rows.map(|row| {
        let [folder, cpu, threads, _, load, clock, watts] = row.split(',').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let number = |text: &str| text.parse::<f64>().unwrap();
        SweepPoint {
            folder: folder.to_owned(),
            cpu: cpu.to_owned(),
            threads: number(threads),
            load: number(load) / 100.0,
            gigahertz: number(clock) / 1000.0,
            watts: number(watts),
        }
    })
    .collect()
}

/// Watts per thread and GHz at rest, what load adds, and the factor of the interval each way.
struct Fit {
    rest: f64,
    load: f64,
    factor: f64,
}

impl SweepPoint {
    fn predicted(&self, rest: f64, load: f64) -> f64 {
        self.threads * self.gigahertz * (rest + load * self.load)
    }
}

fn fit(points: &[&SweepPoint]) -> Fit {
    let alike = |p: &SweepPoint| points.iter().filter(|q| q.folder == p.folder).count() as f64;
    let weights: Vec<f64> = points.iter().map(|p| 1.0 / alike(p)).collect();
    let (mut a, mut b) = (0.5f64, 1.0f64);
    // Gauss and Newton, in the logarithms of both coefficients.
    for _ in 0..200 {
        let (mut aa, mut ab, mut bb, mut ar, mut br) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (p, w) in points.iter().zip(&weights) {
            let share = a / (a + b * p.load);
            let residual = (p.watts / p.predicted(a, b)).ln();
            let other = 1.0 - share;
            aa += w * share * share;
            ab += w * share * other;
            bb += w * other * other;
            ar += w * share * residual;
            br += w * other * residual;
        }
        let determinant = aa * bb - ab * ab;
        a *= ((bb * ar - ab * br) / determinant).clamp(-0.5, 0.5).exp();
        b *= ((aa * br - ab * ar) / determinant).clamp(-0.5, 0.5).exp();
    }
    let mut processors: Vec<&str> = points.iter().map(|p| p.cpu.as_str()).collect();
    processors.sort_unstable();
    processors.dedup();
    let (means, variances): (Vec<f64>, Vec<f64>) = processors
        .iter()
        .map(|cpu| {
            let of = points.iter().filter(|p| p.cpu == *cpu);
            moments(&of.map(|p| (p.watts / p.predicted(a, b)).ln()).collect::<Vec<_>>())
        })
        .unzip();
    let k = processors.len() as f64;
    let within = variances.iter().sum::<f64>() / k;
    // The 95 % quantiles of Student's t with 2 and 3 degrees of freedom.
    let t = if processors.len() == 3 { 2.920 } else { 2.353 };
    Fit { rest: a, load: b, factor: (t * (moments(&means).1 * (1.0 + 1.0 / k) + within).sqrt()).exp() }
}

/// Mean and variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0))
}

#[test]
fn the_constants_of_the_model_are_those_of_the_fit() {
    let points = sweeps();
    let fit = fit(&points.iter().collect::<Vec<_>>());
    let rounded = [fit.rest, fit.load, fit.factor].map(|x| (x * 100.0).round() / 100.0);
    assert_eq!(rounded, [0.71, 1.38, 2.38]);
}

/// Prints what docs/results/power-model.md says: `cargo test -p wattle-meter --lib left_out -- --nocapture`.
#[test]
#[allow(clippy::print_stdout, reason = "the numbers are for the page")]
fn a_processor_that_was_left_out_lies_inside_the_interval_of_the_others() {
    let points = sweeps();
    let mut processors: Vec<&str> = points.iter().map(|p| p.cpu.as_str()).collect();
    processors.dedup();
    processors.sort_unstable();
    processors.dedup();
    let (mut inside, mut error, mut widths) = (0, 0.0, vec![]);
    for left_out in processors {
        let others: Vec<&SweepPoint> = points.iter().filter(|p| p.cpu != left_out).collect();
        let fit = fit(&others);
        for p in points.iter().filter(|p| p.cpu == left_out) {
            let ratio = p.watts / p.predicted(fit.rest, fit.load);
            inside += usize::from((1.0 / fit.factor..=fit.factor).contains(&ratio));
            error += (1.0 / ratio - 1.0).abs() / points.len() as f64;
            widths.push(fit.factor * fit.factor);
        }
    }
    widths.sort_by(f64::total_cmp);
    let width = widths[widths.len() / 2];
    let (envelope, held) = envelope_at(&points, inside as f64 / points.len() as f64);
    println!(
        "left out: {inside} of {} inside, upper over lower bound {width:.1}, middle off by {:.0} %; \
         envelope of the curves in use, widened until it holds {held} points: {envelope:.1}",
        points.len(),
        100.0 * error
    );
    assert!(inside * 10 >= points.len() * 9, "{inside} of {}", points.len());
    assert!(error < 0.38, "the best of the curves in use errs by 38 % and is told the TDP: {error}");
    assert!(width < envelope, "at the same coverage");
}

/// The curves in use, given the true TDP: constant half, CodeCarbon's cubic, at least a tenth, Teads'. Their envelope,
/// widened by a factor each way until it holds this share of the points: its median upper over lower bound.
fn envelope_at(points: &[SweepPoint], share: f64) -> (f64, usize) {
    let tdp = |p: &SweepPoint| match p.folder.as_str() {
        "EPYC" => 90.0,
        "Threadripper" => 180.0,
        "E5-2620" => 170.0,
        _ => 69.0,
    };
    let bounds: Vec<(f64, f64)> = points
        .iter()
        .map(|p| {
            let u = p.load;
            let teads = match u {
                u if u < 0.1 => 0.12 + 2.0 * u,
                u if u < 0.5 => 0.32 + 1.075 * (u - 0.1),
                u => 0.75 + 0.54 * (u - 0.5),
            };
            let curves = [0.5, 0.1 + 0.9 * u.powi(3), u.max(0.1), teads].map(|share| share * tdp(p));
            (curves.into_iter().fold(f64::INFINITY, f64::min), curves.into_iter().fold(0.0, f64::max))
        })
        .collect();
    let held = |factor: f64| {
        let inside = |(p, (low, high)): &(&SweepPoint, &(f64, f64))| {
            low / factor <= p.watts && p.watts <= high * factor
        };
        points.iter().zip(&bounds).filter(inside).count()
    };
    let mut factor = 1.0;
    while (held(factor) as f64) < share * points.len() as f64 {
        factor += 0.01;
    }
    let mut ratios: Vec<f64> = bounds.iter().map(|(low, high)| high / low * factor * factor).collect();
    ratios.sort_by(f64::total_cmp);
    (ratios[ratios.len() / 2], held(factor))
}
