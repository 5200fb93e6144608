//! An answer together with the way to it: every step with its formula, its result and where that comes from.

use serde::Serialize;

use crate::{Quantity, QuantityError, Source};

/// One line of a derivation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What it yields; later formulas refer to it by this name.
    pub name: &'static str,
    /// How, in the names of earlier steps; empty for what was given.
    pub formula: String,
    /// The result.
    pub result: Quantity,
}

/// Steps in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Derivation {
    steps: Vec<Step>,
}

impl Derivation {
    /// Notes an ingredient, with the source it came with.
    pub fn given(&mut self, name: &'static str, value: &Quantity) {
        self.steps.push(Step { name, formula: String::new(), result: value.clone() });
    }

    /// Notes a computed step and returns it. Its source becomes `modelled:formula`, since the ingredients' own
    /// sources stand at the steps that the formula names.
    ///
    /// # Errors
    /// The error of the computation.
    pub fn step(
        &mut self,
        name: &'static str,
        formula: impl Into<String>,
        result: Result<Quantity, QuantityError>,
    ) -> Result<Quantity, QuantityError> {
        let formula = formula.into();
        let result = result?.with_source(Source::modelled(&formula));
        self.steps.push(Step { name, formula, result: result.clone() });
        Ok(result)
    }

    /// The result of the step of this name; of several, the last.
    pub fn get(&self, name: &str) -> Option<&Quantity> {
        self.steps.iter().rev().find(|s| s.name == name).map(|s| &s.result)
    }

    /// All steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Names of ingredients that nobody stated, measured or published for this run: assumptions to look at first.
    pub fn assumed(&self) -> Vec<&'static str> {
        let stated = |s: &Step| s.result.source().detail().starts_with("stated by");
        let assumed =
            |s: &&Step| s.formula.is_empty() && matches!(s.result.source(), Source::Assumed(_)) && !stated(s);
        self.steps.iter().filter(assumed).map(|s| s.name).collect()
    }
}
