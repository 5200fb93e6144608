//! `docs/results/accelerator-validation.md` says what the model gives: it is written from the rows that the other tests check.

use std::fmt::Write;
use std::path::Path;

use wattle_accel::{Architecture, made_up, pe, simulate};

use crate::chip;
use crate::published::{Judged, LANE_CYCLES, Row, channel_counts, mobilenet, sparse_mobilenet, with_counts};
use crate::{eyeriss_v1, row_stationary, scaling, timeloop, zigzag};

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
             nn_dataflow's test [V]; how the chip blocks each layer, and its ports, recalled [M]. The paper gives 154 active \
             PEs for conv1, the test 151. The rule for the times (a pass takes its weights, then its first windows, \
             then as long as its products or its sums) was found with these times in view: it explains them, it \
             does not predict them. conv4 and conv5 run the same passes, 3 to 2 of them, and took 1.6 times as long: \
             no such rule is within 3.3 % of both.\n\n";
    table(&mut page, &eyeriss_v1::chip_rows());
    page += "\n## T3: energies of ISCA 2016, Fig. 10, 16 images, 1e9 MAC units\n\nAs in \
             nn_dataflow's test [V]. The blocking is the cheapest by that program's rules, searched among nests of this \
             crate; its DRAM accesses are counted by this crate's model.\n\n";
    table(&mut page, &row_stationary::rows());
    page += "\n## T4: Timeloop v4, Eyeriss-like, mapping given\n\n[V]. The energy table is known to three digits.\n\n";
    table(&mut page, &timeloop::rows());
    page += "\n## T5: the whole chip\n\nCalibrated (one factor for all energy on the chip, the same for v1, v1.5, v2 and \
             every network):\n\n";
    table(&mut page, &chip::calibrated());
    page += "\nHeld out from the calibration of energy:\n\n";
    table(&mut page, &chip::held_out());
    page += "\nThe densities of sparse AlexNet decide these rows, and none was read in a source. Above: weights of Han et \
             al. 2015, chosen before any result. Once more with densities scaled to the totals of the pruning that the \
             paper's authors used (Yang et al. 2017: 5.73M weights, 56M products of two non-zero values [M]), shown but \
             not judged: energy and GOPS/W a layer then agree, and the speed does not.\n\n";
    table(&mut page, &chip::by_other_densities());
    page += "\nExternal memory: layers are mapped without its limit, then simulated with and without it. The chip's loss needs \
             more traffic than these mappings have (see the DRAM rows: the published convolutions move about twice as \
             much), and none of it hidden: all of sparse MobileNet's bytes, one after the other with nothing else \
             running, would take a sixth of its time. That is decision 25.\n\n\
             ### Scaling (Fig. 14 [V]): speed over that of 256 PEs, dense, batch 1\n\n";
    table(&mut page, &scaling::rows());
    page += "\nFor the search to be short, axes take fewer loops here than the chip allows: C M P G, M Q G, R C and M Q in the \
             mesh, R C and P M in the flat network.\n\nOnly five layers of sparse MobileNet have published densities; the others take the published share of \
             products, split evenly between activations and weights (see `published.rs`). Of the model's assumptions on what does not \
             overlap, some were made with the first of these numbers in view (decisions 20 and 25).\n\n\
             ## Model against simulator, sparse MobileNet on v2\n\n\"Published\" is the simulator here, on values drawn \
             to the densities; its sums are bit-exact with integer convolution (a test).\n\n";
    table(&mut page, &simulated());
    page += "\n## T6: ZigZag's ResNet-18 on its tpu_like, mappings of ZigZag\n\nGolden of zigzag-dse 3.9.1 [V]; its cycles are \
             those that the package gives as installed. Both mappers under both evaluators: accelerator-mapper.md.\n\n";
    table(&mut page, &zigzag::rows());
    page += "\n## Not shown\n\n\
             - \"10x less energy than a mobile GPU\" was said of Eyeriss v1 (2016), never of v2.\n";
    page
}

#[test]
fn the_page_of_validation_says_what_the_model_gives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/results/accelerator-validation.md");
    let page = page();
    if std::env::var_os("WATTLE_WRITE_PAGES").is_some() {
        std::fs::write(&path, &page).expect("the documentation can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let stale = page.lines().zip(committed.lines()).find(|(made, found)| made != found);
    assert!(
        page == committed,
        "docs/results/accelerator-validation.md is stale (first difference: {stale:?}); write it again with \
         WATTLE_WRITE_PAGES=1 cargo test -p wattle-accel --test validation page"
    );
}
