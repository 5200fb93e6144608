//! Every environment variable the meter reads, declared once.

use std::path::PathBuf;

/// An environment variable that changes what a receipt says or where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The variable's name.
    pub name: &'static str,
    /// What it does, as one line of help.
    pub help: &'static str,
}

/// Carbon intensity of electricity.
pub const CARBON_INTENSITY: Variable = Variable {
    name: "WATTLE_CARBON_INTENSITY",
    help: "carbon intensity of your electricity in gCO2e/kWh: 57, 30..90 or 30..57..90",
};

/// Price of electricity.
pub const PRICE: Variable = Variable {
    name: "WATTLE_PRICE",
    help: "price of your electricity in USD/kWh: 0.25, 0.1..0.4 or 0.1..0.25..0.4",
};

/// Power usage effectiveness.
pub const PUE: Variable = Variable {
    name: "WATTLE_PUE",
    help: "power usage effectiveness of your site: 1 for a desk, 1.1..1.6 for a data centre",
};

/// Path of the ledger.
pub const LEDGER: Variable =
    Variable { name: "WATTLE_LEDGER", help: "file that receipts are appended to; empty means none" };

/// The factors of [`Factors`](crate::Factors), in the order of its fields.
pub const FACTORS: [Variable; 3] = [CARBON_INTENSITY, PRICE, PUE];

/// All of them, for help pages. `XDG_DATA_HOME`, `HOME` and `LOCALAPPDATA` are read too, to find the default ledger.
pub const VARIABLES: [Variable; 4] = [CARBON_INTENSITY, PRICE, PUE, LEDGER];

/// A folder of the user's: `variable` of the XDG base directory specification (a relative path is invalid and to be
/// ignored), else `below_home` in `$HOME`, else, on Windows, `%LOCALAPPDATA%`.
pub fn user_folder(
    environment: impl Fn(&str) -> Option<String>,
    variable: &str,
    below_home: &str,
) -> Option<PathBuf> {
    let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable)
        .or_else(|| Some(absolute("HOME")?.join(below_home)))
        .or_else(|| absolute("LOCALAPPDATA"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_documented() {
        let page = include_str!("../../../docs/reference/receipt.md");
        for variable in VARIABLES {
            assert!(page.contains(&format!("`{}`", variable.name)), "{} is not in the page", variable.name);
        }
    }
}
