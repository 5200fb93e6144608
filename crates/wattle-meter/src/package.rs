//! Which processor a machine has, where its owner knows better than the machine says: how many threads its package has,
//! and what it may draw (TDP).
//!
//! A virtual machine is answerable for its threads' part of the package. The table has server processors; TDP and threads
//! are the makers' (`as_of` says when they were looked up), and a name is never matched to a near one.

use serde::Deserialize;

use crate::table::rows;

const TABLE: &str = include_str!("../data/cpus.csv");

/// A processor package: what is plugged into one socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// Such as `AMD EPYC 7763`, or `stated` where only its numbers were.
    pub name: String,
    /// Hardware threads of the whole package.
    pub threads: u32,
    /// Thermal design power of the whole package, W.
    pub tdp_w: f64,
}

/// What was stated of a processor and cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The table does not have it.
    #[error(
        "option `cpu-model`: {found:?} is not in the table{near}; or state option `cpu-tdp` and option `cpu-threads`"
    )]
    Unknown {
        /// The name given.
        found: String,
        /// Some that it occurs in, as the end of a sentence.
        near: String,
    },
    /// One number without the other.
    #[error("option `cpu-tdp` and option `cpu-threads`: one is missing; state both, or option `cpu-model`")]
    Half,
    /// A number that no processor has.
    #[error("option `{name}`: found {found}, expected {expected} of the whole package")]
    Number {
        /// The option's name.
        name: &'static str,
        /// The number given.
        found: f64,
        /// Of what, from where to where.
        expected: &'static str,
    },
}

/// A row of the table.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    threads: u32,
    tdp_w: f64,
    #[cfg(test)]
    year: u16,
    #[cfg(test)]
    as_of: String,
    #[cfg(test)]
    source: String,
}

impl Package {
    /// The processor as stated: by its name in the table, by its numbers, or by its name with a number corrected (a site
    /// may have set another TDP). `None` where nothing was stated.
    ///
    /// # Errors
    /// [`PackageError`] where it is not in the table, or the numbers make no processor.
    pub fn stated(
        model: Option<&str>,
        tdp_w: Option<f64>,
        threads: Option<u32>,
    ) -> Result<Option<Package>, PackageError> {
        let known = model.map(find).transpose()?;
        let package = match (known, tdp_w, threads) {
            (None, None, None) => return Ok(None),
            (Some(known), _, _) => Package {
                tdp_w: tdp_w.unwrap_or(known.tdp_w),
                threads: threads.unwrap_or(known.threads),
                ..known
            },
            (None, Some(tdp_w), Some(threads)) => Package { name: "stated".to_owned(), threads, tdp_w },
            (None, _, _) => return Err(PackageError::Half),
        };
        let number = |name, found, expected| Err(PackageError::Number { name, found, expected });
        if !(1.0..=2000.0).contains(&package.tdp_w) {
            return number("cpu-tdp", package.tdp_w, "watts from 1 to 2000");
        }
        if !(1..=4096).contains(&package.threads) {
            return number("cpu-threads", f64::from(package.threads), "threads from 1 to 4096");
        }
        Ok(Some(package))
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        format!("{}, {} W, {} threads", self.name, self.tdp_w, self.threads)
    }
}

fn find(model: &str) -> Result<Package, PackageError> {
    let wanted = plain(model);
    let all: Vec<Row> = rows("cpus.csv", TABLE);
    if let Some(Row { name, threads, tdp_w, .. }) = all.iter().find(|row| plain(&row.name) == wanted) {
        return Ok(Package { name: name.clone(), threads: *threads, tdp_w: *tdp_w });
    }
    let near = all.iter().filter(|row| wanted.len() > 2 && plain(&row.name).contains(&wanted));
    let near: Vec<&str> = near.map(|row| row.name.as_str()).take(4).collect();
    let near = if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(", ")) };
    Err(PackageError::Unknown { found: model.to_owned(), near })
}

/// A name without what makers and kernels add to it: `Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz`,
/// `AMD EPYC 7763 64-Core Processor`.
fn plain(name: &str) -> String {
    let name = name.to_lowercase().replace("(r)", " ").replace("(tm)", " ");
    let name = name.split('@').next().unwrap_or_default();
    let cores = |word: &&str| !word.ends_with("-core");
    // `epyc-7763` needs no quotes in a shell.
    let name = name.split_whitespace().filter(cores).collect::<Vec<_>>().join(" ").replace('-', " ");
    let maker = |word: &&str| matches!(*word, "intel" | "amd" | "cpu" | "processor");
    name.split(' ').filter(|word| !maker(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_plausible_dated_sourced_and_found_by_its_name() {
        let all: Vec<Row> = rows("cpus.csv", TABLE);
        assert!(all.len() > 80);
        for row in &all {
            let each = row.tdp_w / f64::from(row.threads);
            assert!((1.0..10.0).contains(&each), "{row:?}: W a thread");
            assert!(
                (2010..2027).contains(&row.year) && row.as_of.len() == 7 && row.source.len() > 10,
                "{row:?}"
            );
            let found = find(&row.name).unwrap();
            assert_eq!((found.threads, &found.name), (row.threads, &row.name), "a name twice");
        }
    }

    #[test]
    fn a_processor_is_found_as_a_kernel_writes_it_and_never_a_near_one() {
        let threads = |name: &str| find(name).map(|p| p.threads);
        assert_eq!(threads("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz"), Ok(48));
        assert_eq!(threads("AMD EPYC 7763 64-Core Processor"), Ok(128));
        assert_eq!(threads("epyc 7763"), Ok(128));
        assert_eq!((threads("epyc-7763"), threads("amd-epyc-7763")), (Ok(128), Ok(128)));
        for name in ["AMD EPYC", "EPYC 776", "Xeon", "7763", ""] {
            let error = find(name).unwrap_err().to_string();
            assert!(error.contains("option `cpu-tdp`"), "{error}");
        }
        assert!(find("epyc 77").unwrap_err().to_string().contains("did you mean AMD EPYC 7702"));
    }

    #[test]
    fn numbers_complete_or_correct_a_name_and_half_of_them_is_refused() {
        let stated = |model, tdp, threads| Package::stated(model, tdp, threads);
        assert_eq!(stated(None, None, None), Ok(None));
        let corrected = stated(Some("EPYC 7763"), Some(225.0), None).unwrap().unwrap();
        assert_eq!((corrected.tdp_w, corrected.threads), (225.0, 128));
        let own = stated(None, Some(65.0), Some(16)).unwrap().unwrap();
        assert_eq!(own.describe(), "stated, 65 W, 16 threads");
        assert_eq!(stated(None, Some(65.0), None), Err(PackageError::Half));
        for (tdp, threads) in [(0.0, 16), (f64::NAN, 16), (1e9, 16), (65.0, 0)] {
            assert!(matches!(stated(None, Some(tdp), Some(threads)), Err(PackageError::Number { .. })));
        }
    }
}
