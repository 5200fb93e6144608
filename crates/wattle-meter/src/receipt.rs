//! The receipt: what a command cost, how that is known, and why it stopped.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Accounts, Factors, Machine, Quantity, Software, Source, Timestamp, Unit, Warning, WarningKind};

/// The version of the receipt's JSON form; a reader refuses any other.
pub const SCHEMA: &str = "wattle.receipt/1";

/// What one command cost. Its JSON form is documented in `docs/reference/receipt.md`.
///
/// The meter fills in everything it knows when it stops; the command adds its work, seeds and stop reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Always [`SCHEMA`].
    pub schema: Schema,
    /// The command and its arguments as typed.
    pub command: Vec<String>,
    /// The user's own labels, for summing a ledger by project or experiment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When the meter started.
    pub started: Timestamp,
    /// Elapsed time by the monotonic clock, which stands still while the machine sleeps.
    #[serde(deserialize_with = "spent")]
    pub duration: Quantity,
    /// Processor time of this process and the children it waited for, over all threads.
    #[serde(default, deserialize_with = "spent_if_known")]
    pub cpu_time: Option<Quantity>,
    /// Energy, by component and in total.
    pub energy: Energy,
    /// Who spent the energy of processors and memory: this run, others, nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// Average power: total energy over duration.
    pub power: Option<Quantity>,
    /// Greenhouse gas: energy x PUE x carbon intensity.
    pub carbon: Option<Quantity>,
    /// Electricity cost: energy x PUE x price.
    pub cost: Option<Quantity>,
    /// What was accounted for besides, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Accounts>,
    /// The factors used for carbon and cost.
    pub factors: Factors,
    /// What was done for it.
    pub work: WorkDone,
    /// What it ran on.
    pub machine: Machine,
    /// What ran.
    pub software: Software,
    /// Random seeds by stream.
    pub seeds: BTreeMap<String, u64>,
    /// Phases of the run, in order of first start.
    pub scopes: Vec<ScopeRecord>,
    /// The raw readings that the energy was computed from.
    pub samples: Samples,
    /// How much of the run the energy stands for.
    pub coverage: Coverage,
    /// What a reader should know before using the numbers.
    pub warnings: Vec<Warning>,
    /// Why the run ended.
    pub stop_reason: StopReason,
    /// The processes that worked on the run one after another, where there were several; their costs are added up in
    /// all the fields above ([`Receipt::plus`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stints: Vec<Stint>,
    /// When the run was asked for again after it had finished. What a look costs is in none of the fields above
    /// ([`Receipt::add_look`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<Look>,
}

/// What one process spent on a run that several worked on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stint {
    /// When its meter started.
    pub started: Timestamp,
    /// Its elapsed time.
    #[serde(deserialize_with = "spent")]
    pub duration: Quantity,
    /// Its energy, J.
    #[serde(default, deserialize_with = "spent_if_known")]
    pub energy: Option<Quantity>,
    /// The carbon of that, under the factors that held then.
    pub carbon: Option<Quantity>,
    /// The cost of that, under the factors that held then.
    pub cost: Option<Quantity>,
    /// The processor it ran on, as its machine names it.
    pub cpu_model: Option<String>,
    /// Why it ended.
    pub stop_reason: StopReason,
}

/// Somebody asked for a finished run again: nothing was left to do, and this is what finding that out cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// When.
    pub started: Timestamp,
    /// Elapsed time.
    #[serde(deserialize_with = "spent")]
    pub duration: Quantity,
    /// Energy, J.
    #[serde(default, deserialize_with = "spent_if_known")]
    pub energy: Option<Quantity>,
}

/// Time and energy that were spent. A negative one, as a clock that was set back leaves in other tools, is refused: it would
/// cancel what others spent in a sum.
fn spent<'de, D: Deserializer<'de>>(from: D) -> Result<Quantity, D::Error> {
    let quantity = Quantity::deserialize(from)?;
    if quantity.value() < 0.0 {
        return Err(D::Error::custom(format!("{quantity}: expected time or energy spent, 0 or more")));
    }
    Ok(quantity)
}

fn spent_if_known<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Quantity>, D::Error> {
    #[derive(Deserialize)]
    struct Spent(#[serde(deserialize_with = "spent")] Quantity);
    Ok(Option::<Spent>::deserialize(from)?.map(|Spent(quantity)| quantity))
}

/// The schema marker of a receipt; reading any other schema is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schema;

impl TryFrom<String> for Schema {
    type Error = String;

    fn try_from(found: String) -> Result<Self, String> {
        if found == SCHEMA {
            Ok(Schema)
        } else {
            Err(format!(
                "receipt schema {found:?}: expected {SCHEMA:?}; another version of wattle wrote this"
            ))
        }
    }
}

impl From<Schema> for String {
    fn from(_: Schema) -> String {
        SCHEMA.to_owned()
    }
}

/// Energy by component; parts of one whole are never listed beside it, so the components add up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// The sum of the components, J; `None` if nothing is known.
    #[serde(default, deserialize_with = "spent_if_known")]
    pub total: Option<Quantity>,
    /// What is inside the numbers and what is not.
    pub boundary: Boundary,
    /// The components.
    pub components: Vec<Component>,
}

/// What an energy figure includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Boundary {
    /// Whole processor packages (and memory where it has a counter): idle power and other processes included;
    /// disks, fans, power supply and cooling not.
    WholePackages,
    /// This process's share of the processor: its busy time and its logical processors' idle power. Memory,
    /// disks, fans, power supply, cooling and other processes are not included.
    ProcessShare,
    /// The whole machine as its battery sees it: everything inside the case, other processes included.
    WholeMachine,
    /// Parts with different boundaries were added up; the components tell them apart.
    Mixed,
}

/// The energy of processors and memory, divided: `process + other + idle = machine`, exactly, in microjoules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SharesFields")]
pub struct Shares {
    /// All of it.
    pub machine_uj: u64,
    /// Spent by the work of the measured process tree.
    pub process_uj: u64,
    /// Spent by the work of other processes.
    pub other_uj: u64,
    /// Spent on nobody's work: what the machine draws at rest.
    pub idle_uj: u64,
    /// `process_uj` as joules, with its interval.
    pub process: Quantity,
    /// What the processors were taken to draw at rest, W; missing where the energy model has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_power: Option<Quantity>,
}

impl Shares {
    /// The process tree's work and, in proportion to it, the machine's idle energy: what everything costs when those
    /// who work pay for the machine.
    pub fn process_with_idle_uj(&self) -> u64 {
        let active = u128::from(self.process_uj) + u128::from(self.other_uj);
        let idle = (u128::from(self.idle_uj) * u128::from(self.process_uj)).checked_div(active);
        self.process_uj + u64::try_from(idle.unwrap_or(0)).expect("a share of a u64")
    }
}

#[derive(Deserialize)]
struct SharesFields {
    machine_uj: u64,
    process_uj: u64,
    other_uj: u64,
    idle_uj: u64,
    process: Quantity,
    idle_power: Option<Quantity>,
}

impl TryFrom<SharesFields> for Shares {
    type Error = String;

    fn try_from(f: SharesFields) -> Result<Self, String> {
        let sum = u128::from(f.process_uj) + u128::from(f.other_uj) + u128::from(f.idle_uj);
        if sum != u128::from(f.machine_uj) {
            return Err(format!(
                "shares: process + other + idle = {sum} uJ, expected machine = {} uJ",
                f.machine_uj
            ));
        }
        Ok(Shares {
            machine_uj: f.machine_uj,
            process_uj: f.process_uj,
            other_uj: f.other_uj,
            idle_uj: f.idle_uj,
            process: f.process,
            idle_power: f.idle_power,
        })
    }
}

/// The energy of one component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Such as `package-0`, `package-0/dram`, `cpu-busy`.
    pub name: String,
    /// Its energy, J.
    #[serde(deserialize_with = "spent")]
    pub energy: Quantity,
}

/// What was done, where it was counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkDone {
    /// Multiply-accumulates as if nothing were sparse.
    pub macs_nominal: Option<Quantity>,
    /// Multiply-accumulates that sparsity left over.
    pub macs_effective: Option<Quantity>,
    /// Bytes read by the operators.
    pub bytes_read: Option<Quantity>,
    /// Bytes written by the operators.
    pub bytes_written: Option<Quantity>,
    /// Samples processed.
    pub samples: Option<Quantity>,
    /// Sizes of files that were made, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Quantity>,
}

/// One phase of the run. A phase entered again under the same path adds to its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScopeRecord {
    /// Names from the outermost scope inwards, joined by `/`.
    pub path: String,
    /// How often it was entered and left.
    pub count: u64,
    /// Time inside, s.
    #[serde(deserialize_with = "spent")]
    pub duration: Quantity,
    /// Energy spent while inside, J; scopes that overlap in time share the same joules.
    #[serde(default, deserialize_with = "spent_if_known")]
    pub energy: Option<Quantity>,
}

/// Readings of the energy source over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Readings taken, those at the borders of scopes included.
    pub taken: u64,
    /// Seconds between the readings kept; it doubles whenever a long run fills the list.
    pub interval_s: f64,
    /// `(seconds since start, joules since start)`, evenly thinned.
    pub readings: Vec<(f64, f64)>,
    /// Average power between consecutive readings kept, summarised.
    pub power: Option<PowerSummary>,
}

/// Spread of the power between readings that are far enough apart to tell it (a tenth of a second at least), each weighted
/// by its duration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PowerSummary {
    /// Number of intervals.
    pub n: u64,
    /// Lowest average over one interval, W.
    pub min_w: f64,
    /// Mean, W.
    pub mean_w: f64,
    /// Highest average over one interval, W.
    pub max_w: f64,
    /// Standard deviation, W.
    pub sd_w: f64,
}

/// How many seconds of the run stand behind the energy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Seconds between good counter readings.
    #[serde(deserialize_with = "spent")]
    pub measured: Quantity,
    /// Seconds filled in by a model.
    #[serde(deserialize_with = "spent")]
    pub modelled: Quantity,
    /// Seconds elapsed.
    #[serde(deserialize_with = "spent")]
    pub elapsed: Quantity,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// It did what was asked, to the end.
    Completed,
    /// Nothing improved any more.
    Converged,
    /// The goal was met.
    TargetReached,
    /// A budget of steps, epochs or rounds was used up.
    Budget,
    /// A time limit was reached.
    Time,
    /// A signal or a person stopped it.
    Interrupted,
    /// It failed; the receipt covers the work until then.
    Failed,
    /// There was nothing to do: the run had finished before.
    FoundFinished,
}

impl WorkDone {
    /// A counted amount of work, exact.
    pub fn counted(n: u64, unit: Unit) -> Quantity {
        Quantity::count(n, unit, Source::measured("count"))
    }
}

impl Receipt {
    /// The receipt as indented JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a receipt has string keys and finite numbers only")
    }

    /// Reads a receipt back.
    ///
    /// # Errors
    /// The JSON error, with line and column; another schema version is one of them.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Adds a warning unless it is there already.
    pub fn warn(&mut self, kind: WarningKind) {
        if self.warnings.iter().all(|w| w.kind != kind) {
            self.warnings.push(Warning::from(kind));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A receipt with every field filled, for golden tests.
    pub(crate) fn example() -> Receipt {
        let model = || Source::modelled("cpu-time/1");
        let joules = |low, value, high| Quantity::new(value, low, high, Unit::Joule, model()).unwrap();
        let seconds =
            |value, counter: &str| Quantity::exact(value, Unit::Second, Source::measured(counter)).unwrap();
        let total = joules(30.0, 90.0, 300.0);
        let duration = seconds(12.5, "monotonic-clock");
        let factors = Factors::default();
        Receipt {
            schema: Schema,
            command: ["wattle", "shrink", "--seed", "7"].map(str::to_owned).to_vec(),
            labels: BTreeMap::from([("project".to_owned(), "demo".to_owned())]),
            started: "2026-11-23T01:48:18.123Z".parse().unwrap(),
            cpu_time: Some(seconds(24.0, "proc-stat")),
            shares: Some(Shares {
                machine_uj: 100_000_001,
                process_uj: 66_000_000,
                other_uj: 10_000_000,
                idle_uj: 24_000_001,
                process: joules(20.0, 66.0, 250.0),
                idle_power: None,
            }),
            power: Some(total.ratio(&duration).unwrap()),
            carbon: Some(factors.carbon(&total).unwrap()),
            cost: Some(factors.cost(&total).unwrap()),
            energy: Energy {
                total: Some(total.clone()),
                boundary: Boundary::ProcessShare,
                components: vec![Component { name: "cpu-busy".to_owned(), energy: total }],
            },
            accounts: None,
            factors,
            work: WorkDone {
                macs_nominal: Some(WorkDone::counted(2_000_000, Unit::Mac)),
                macs_effective: Some(WorkDone::counted(300_000, Unit::Mac)),
                bytes_read: None,
                bytes_written: None,
                samples: Some(WorkDone::counted(1797, Unit::Sample)),
                files: BTreeMap::new(),
            },
            machine: Machine {
                cpu_model: Some("AMD EPYC".to_owned()),
                cpu_id: Some("AuthenticAMD 25/1/1".to_owned()),
                cores: 2,
                isa: vec!["avx2".to_owned()],
                memory_bytes: Some(8_589_934_592),
                os: "linux 6.1.0".to_owned(),
                virtualised: Some(true),
            },
            software: Software {
                wattle: "0.1.0".to_owned(),
                target: "x86_64-linux".to_owned(),
                profile: "release".to_owned(),
            },
            seeds: BTreeMap::from([("init".to_owned(), u64::MAX), ("order".to_owned(), 7)]),
            scopes: vec![ScopeRecord {
                path: "train/epoch".to_owned(),
                count: 3,
                duration: seconds(10.0, "monotonic-clock"),
                energy: Some(joules(20.0, 70.0, 250.0)),
            }],
            samples: Samples {
                taken: 4,
                interval_s: 1.0,
                readings: vec![(0.0, 0.0), (12.5, 90.0)],
                power: Some(PowerSummary { n: 1, min_w: 7.2, mean_w: 7.2, max_w: 7.2, sd_w: 0.0 }),
            },
            coverage: Coverage {
                measured: seconds(0.0, "rapl-powercap"),
                modelled: Quantity::exact(12.5, Unit::Second, model()).unwrap(),
                elapsed: duration.clone(),
            },
            duration,
            warnings: vec![Warning::from(WarningKind::ModelledNotMeasured {
                reason: "no powercap counters".to_owned(),
            })],
            stop_reason: StopReason::TargetReached,
            stints: vec![],
            looks: vec![],
        }
    }

    const GOLDEN: &str = include_str!("receipt.golden.json");

    #[test]
    fn json_form_is_stable() {
        assert_eq!(
            example().to_json().trim(),
            GOLDEN.trim(),
            "the JSON form changed: bump SCHEMA, docs/reference/receipt.md and the golden file together"
        );
    }

    #[test]
    fn json_round_trips_exactly() {
        assert_eq!(Receipt::from_json(&example().to_json()).unwrap(), example());
    }

    #[test]
    fn shares_that_do_not_add_up_are_refused() {
        let text = example().to_json().replace("\"idle_uj\": 24000001", "\"idle_uj\": 24000002");
        let error = Receipt::from_json(&text).unwrap_err().to_string();
        assert!(error.contains("100000002"), "{error}");
        assert_eq!(example().shares.unwrap().process_with_idle_uj(), 66_000_000 + 20_842_106);
    }

    #[test]
    fn a_receipt_of_before_shares_is_still_read() {
        let mut old = example();
        old.shares = None;
        assert_eq!(Receipt::from_json(&old.to_json()).unwrap(), old);
    }

    #[test]
    fn time_or_energy_below_zero_is_refused_wherever_it_stands() {
        let json: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        for path in [
            "/duration",
            "/cpu_time",
            "/energy/total",
            "/energy/components/0/energy",
            "/scopes/0/duration",
            "/scopes/0/energy",
            "/coverage/elapsed",
        ] {
            let mut json = json.clone();
            let quantity = json.pointer_mut(path).unwrap();
            (quantity["value"], quantity["low"]) = ((-5.0).into(), (-5.0).into());
            let error = Receipt::from_json(&json.to_string()).unwrap_err().to_string();
            assert!(error.contains("-5") && error.contains("0 or more"), "{path}: {error}");
        }
    }

    #[test]
    fn another_schema_is_refused_by_name() {
        let text = example().to_json().replace("wattle.receipt/1", "wattle.receipt/2");
        let error = Receipt::from_json(&text).unwrap_err().to_string();
        assert!(error.contains("wattle.receipt/2") && error.contains(SCHEMA), "{error}");
    }

    #[test]
    fn every_field_is_documented() {
        let page = include_str!("../../../docs/reference/receipt.md");
        let json: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        for key in json.as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{key}`")), "docs/reference/receipt.md lacks `{key}`");
        }
    }

    #[test]
    fn a_repeated_warning_is_listed_once() {
        let mut r = example();
        let kind = WarningKind::TooShortToMeasure { needed_ms: 100 };
        r.warn(kind.clone());
        r.warn(kind);
        assert_eq!(r.warnings.len(), 2);
    }
}
