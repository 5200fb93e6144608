//! `docs/accel-validation.md` says what the model gives: it is written from the rows that the other tests check.

use std::fmt::Write;
use std::path::Path;

use wattle_accel::{Architecture, made_up, pe, simulate};

use crate::chip;
use crate::published::{Judged, LANE_CYCLES, Row, channel_counts, mobilenet, sparse_mobilenet, with_counts};
use crate::{eyeriss_v1, row_stationary, scaling, timeloop};

const HEAD: &str = "# Validation of the accelerator lens

This page is written by a test. To write it again:
`WATTLE_WRITE_PAGES=1 cargo test -p wattle-accel --test validation page`.

Everything is modelled. Marks say how a published value is known: **[V]** read in the cited source, **[D]** derived from
such values by arithmetic, **[M]** recalled and not verified. *missed* means what it says: the model is off by more than
the tolerance set beforehand, and nothing was tuned to hide it.

";

fn table(page: &mut String, rows: &[Row]) {
    *page += "| value | published | model | error | tolerance | |\n|---|---|---|---|---|---|\n";
    for row in rows {
        let percent = format!("{:+.1} %", 100.0 * row.error());
        let (error, tolerance) = match row.judged {
            Judged::Relative(most) => (percent, format!("±{:.1} %", 100.0 * most)),
            Judged::Absolute(most) => (format!("{:+.2}", row.error()), format!("±{most}")),
            Judged::AtLeast => (percent, "at least".to_string()),
            Judged::AtMost => (percent, "at most".to_string()),
            Judged::Shown => (percent, "shown".to_string()),
        };
        let verdict = match row.judged {
            Judged::Shown => "",
            _ if row.met() => "met",
            _ => "**missed**",
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {error} | {tolerance} | {verdict} |",
            row.what,
            shown(row.published),
            shown(row.modelled)
        );
    }
}

/// Whole numbers whole, others with four digits.
fn shown(x: f64) -> String {
    if x.fract() == 0.0 && x.abs() < 1e12 {
        return format!("{x:.0}");
    }
    let digits = (3 - x.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{x:.digits$}")
}

fn lane_rows() -> (Vec<Row>, Vec<Row>) {
    let layers = mobilenet();
    let (mut exact, mut densities) = (vec![], vec![]);
    for (name, counts) in channel_counts() {
        let published = counts.cycles as f64;
        let cycles =
            pe::cycles_from_counts(&name, &counts.nnz_iact, &counts.nnz_weight).expect("equal lists");
        exact.push(Row::exact(&format!("{name}, by counts"), published, cycles as f64));
        let layer = layers.iter().find(|l| l.name == name).expect("one of the 28").clone();
        let layer = with_counts(layer, &counts);
        densities.push(Row::within(
            &format!("{name}, by channel densities"),
            published,
            layer.effective_macs(),
            0.005,
        ));
        let uniform = layer.macs() * layer.iact.density * layer.weight.density;
        densities.push(Row::within(&format!("{name}, by one density"), published, uniform, 0.07));
    }
    for (number, cycles, _) in LANE_CYCLES {
        let layer = &layers[number - 1];
        if layer.macs() == cycles as f64 {
            exact.push(Row::exact(&format!("{}, by shape", layer.name), cycles as f64, layer.macs()));
        }
    }
    (exact, densities)
}

/// Model against simulator, sparse MobileNet on v2.
pub fn simulated() -> Vec<Row> {
    let arch = Architecture::named("eyeriss-v2").expect("it is shipped");
    let table = arch.table().expect("it is shipped");
    let layers = sparse_mobilenet();
    let found = chip::on(&arch, layers.clone());
    let mut rows = vec![];
    for (layer, estimate) in layers.iter().zip(&found.layers) {
        let (iacts, weights) = made_up(layer, 1);
        let m = &estimate.mapped;
        let run = simulate(&arch, layer, &table, m.format, &m.mapping, &iacts, &weights).expect("it fits");
        rows.push(Row::within(
            &format!("{} cycles", layer.name),
            run.cycles.round(),
            m.cost.cycles.total().round(),
            0.10,
        ));
    }
    rows
}

fn page() -> String {
    let mut page = HEAD.to_string();
    let (exact, densities) = lane_rows();
    page += "## T1: cycles of one PE lane, sparse MobileNet-0.5-128\n\nGround truth of Sparseloop's Fig. 12 [V]. It \
             tests the intersection of non-zeros only: one lane, no SIMD, network or balance. By masks: any masks \
             with these counts give the same cycles (a test).\n\n";
    table(&mut page, &exact);
    page += "\nOne density for a layer, the usual shortcut, is shown for what it costs:\n\n";
    table(&mut page, &densities);
    page += "\n## T2: Eyeriss v1, AlexNet, four images\n\nActive PEs and processing times of JSSC 2017, Table V, as in \
             nn_dataflow's test [V]; sizes of the scratch pads, the weight port and conv1's two sets of filters a \
             pass recalled [M]. The paper gives 154 active PEs for conv1, the test 151. The rule for the times (one \
             cycle a window to add a sum up, weights loaded before they are used) was found with these times in view: \
             it explains them, it does not predict them.\n\n";
    table(&mut page, &eyeriss_v1::chip_rows());
    page += "\n## T3: energies of ISCA 2016, Fig. 10, 16 images, 1e9 MAC units\n\nAs in nn_dataflow's test [V]. DRAM is \
             only bounded from below here: the published blocking of the convolutions is not reproduced.\n\n";
    table(&mut page, &row_stationary::rows());
    page += "\n## T4: Timeloop v4, Eyeriss-like, mapping given\n\n[V]. The energy table is known to three digits.\n\n";
    table(&mut page, &timeloop::rows());
    page += "\n## T5: the whole chip\n\nCalibrated (one factor for all energy on the chip, the same for v1, v1.5, v2 and \
             every network):\n\n";
    table(&mut page, &chip::calibrated());
    page += "\nHeld out from the calibration of energy:\n\n";
    table(&mut page, &chip::held_out());
    page += "\nSparse AlexNet once more, with other recalled densities (see `published.rs`):\n\n";
    table(&mut page, &chip::by_other_densities());
    page += "\n### Scaling (Fig. 14 [V]): speed over that of 256 PEs, dense, batch 1\n\n";
    table(&mut page, &scaling::rows());
    page += "\nOnly five layers of sparse MobileNet have published densities; the others take the published share of \
             products, split evenly between activations and weights (see `published.rs`). Of the model's assumptions on what does not \
             overlap, one was made after the first of these numbers was seen (decision 20).\n\n\
             ## Model against simulator, sparse MobileNet on v2\n\n\"Published\" is the simulator here, on values drawn \
             to the densities; its sums are bit-exact with integer convolution (a test).\n\n";
    table(&mut page, &simulated());
    page += "\n## Not shown\n\n\
             - Sparse AlexNet (278.7 inferences/s [M], the 16 % loss at 25.6 GB/s): its densities are not published in \
             a source read here.\n\
             - T6 (ZigZag's ResNet-18 golden): its memory model is not rebuilt here.\n\
             - Scaling to 16384 PEs (Fig. 14): not modelled yet.\n\
             - \"10x less energy than a mobile GPU\" was said of Eyeriss v1 (2016), never of v2.\n";
    page
}

#[test]
fn the_page_of_validation_says_what_the_model_gives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/accel-validation.md");
    let page = page();
    if std::env::var_os("WATTLE_WRITE_PAGES").is_some() {
        std::fs::write(&path, &page).expect("the documentation can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let stale = page.lines().zip(committed.lines()).find(|(made, found)| made != found);
    assert!(
        page == committed,
        "docs/accel-validation.md is stale (first difference: {stale:?}); write it again with \
         WATTLE_WRITE_PAGES=1 cargo test -p wattle-accel --test validation page"
    );
}
