//! What a model says of files: a class with its probability, or numbers, for each sample.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wattle_data::{
    AskOptions, Asked, Column, ColumnInfo, ColumnMap, ModelNotes, Normalisation, NormalisationChoice, Resize,
    TextOptions, Wanted,
};
use wattle_engine::{Plan, Session, Store};
use wattle_graph::ops::Op;
use wattle_graph::rewrite::in_inference_mode;
use wattle_graph::{DType, Graph, Model, Source, ValueId};
use wattle_meter::{Receipt, Unit, WorkDone};
use wattle_train::binding::{self, Bound, write_column};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::given_file;
use crate::models;
use crate::observer::Observer;
use crate::training::normalised::{Normalised, NormalisedBy};

/// Version of the document.
const SCHEMA: u32 = 1;

/// Most samples that are computed at once.
const BATCH: usize = 64;

/// Which model is asked about what.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictOptions {
    /// The ONNX model.
    pub model: PathBuf,
    /// Images, tables, arrays, texts.
    pub files: Vec<PathBuf>,
    /// A file with the name of a class a line, for a model whose file names none.
    pub classes: Option<PathBuf>,
    /// How many classes are told of each sample.
    pub top: usize,
    /// What becomes of images of another size than the model's; refused if left out.
    pub resize: Option<Resize>,
    /// How float inputs are normalised; if left out, as the model's file says.
    pub normalise: Option<NormalisationChoice>,
    /// Which columns or arrays feed which input, where names differ.
    pub columns: ColumnMap,
    /// How text becomes tokens.
    pub tokenizer: Option<PathBuf>,
}

/// What the model says.
#[derive(Clone, Debug, Serialize)]
pub struct Predicted {
    /// Version of this document.
    pub schema: u32,
    /// The output that answers.
    pub output: String,
    /// Where probabilities come from; `None` where the model tells no classes apart.
    pub probabilities: Option<String>,
    /// One a sample, in the order of the files.
    pub predictions: Vec<Prediction>,
    /// What each float input was normalised with, and who says so.
    pub normalisation: BTreeMap<String, Normalised>,
    /// What makes these answers doubtful.
    pub notes: Vec<String>,
    /// What it took.
    pub receipt: Receipt,
}

/// What the model says of a sample.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// The file.
    pub file: PathBuf,
    /// Its place in the file, from 0.
    pub sample: usize,
    /// The line it stands in, of a text table.
    pub line: Option<u64>,
    /// The likeliest classes, the first of them first; empty where the model tells no classes apart.
    pub classes: Vec<Likely>,
    /// The numbers of the output as they are, where the model tells no classes apart.
    pub values: Vec<f32>,
}

/// A class and how likely it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Likely {
    /// Its name.
    pub class: String,
    /// The place of its output, from 0.
    pub index: usize,
    /// As the model says, 0 to 1.
    pub probability: f64,
}

/// Asks a model about files.
///
/// # Errors
/// If something cannot be read or does not fit the model, or nobody says what images are normalised with.
pub fn predict(options: &PredictOptions, env: &Env, observer: &mut dyn Observer) -> Result<Predicted> {
    let meter = env.meter();
    if options.normalise == Some(NormalisationChoice::Measured) {
        let found = "`measured`, but there is no training part to measure; expected none, unit, imagenet or constants";
        return Err(JobError::option("normalise", found));
    }
    let model = models::load(&options.model)?;
    let model = Model { graph: in_inference_mode(&model.graph)?, ..model };
    let notes = ModelNotes::read(&model.metadata)?;
    let classes = match &options.classes {
        Some(path) => names(path)?,
        None => notes.classes.clone(),
    };
    let mut oracle = Oracle::new(&model, &notes, options, env);
    let wanted = Wanted::by(&model.graph)?;
    let ask = AskOptions {
        columns: options.columns.clone(),
        resize: options.resize,
        text: TextOptions { tokenizer: options.tokenizer.clone(), length: None },
    };
    let (mut predictions, mut remarks) = (vec![], vec![]);
    for (done, file) in options.files.iter().enumerate() {
        observer.progress("files", done as u64, options.files.len() as u64);
        let asked = Asked::read(file, &wanted, &ask)?;
        remarks.extend(asked.remarks.iter().cloned());
        let answers = oracle.answers(file, &asked)?;
        check_classes(&classes, options, &answers)?;
        for (sample, values) in answers.rows().enumerate() {
            let line = asked.lines.get(sample).copied();
            let classes = likeliest(values, &classes, answers.are_probabilities, options.top);
            let is_class = !classes.is_empty();
            let values = if is_class { vec![] } else { values.to_vec() };
            predictions.push(Prediction { file: file.clone(), sample, line, classes, values });
        }
    }
    let Oracle { normalised, told, last, .. } = oracle;
    remarks.extend(told);
    let Some((output, are_probabilities)) = last else {
        return Err(JobError::input("no files to predict; expected one or more"));
    };
    if classes.is_empty() && !are_probabilities {
        remarks.push(
            "the model's file names no classes, so the output is told as it is; if it tells classes apart, name them in a \
             file, one a line: option `classes=names.txt`"
                .into(),
        );
    }
    let probabilities = match (are_probabilities, classes.is_empty()) {
        (true, _) => Some(format!("output `{output}`, which ends in a softmax")),
        (false, false) => Some(format!("softmax of output `{output}`")),
        (false, true) => None,
    };
    let mut receipt = meter.stop();
    receipt.work.samples = Some(WorkDone::counted(predictions.len() as u64, Unit::Sample));
    env.record(&mut receipt);
    Ok(Predicted {
        schema: SCHEMA,
        output,
        probabilities,
        predictions,
        normalisation: normalised,
        notes: remarks,
        receipt,
    })
}

/// Names of classes, one a line.
fn names(path: &Path) -> Result<Vec<String>> {
    let text = given_file::text(path)?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    match names.iter().position(String::is_empty) {
        None if !names.is_empty() => Ok(names),
        empty => {
            let line = empty.map_or(1, |at| at + 1);
            Err(JobError::at(
                format_args!("{}, line {line}", path.display()),
                "found no name; expected one in every line, in the order of the outputs",
            ))
        }
    }
}

/// Refuses more names than there are outputs, or other than there are if they come from a file of their own.
fn check_classes(classes: &[String], options: &PredictOptions, answers: &Answers) -> Result<()> {
    let (named, width) = (classes.len(), answers.width);
    if named <= width && (options.classes.is_none() || named == width) {
        return Ok(());
    }
    let found =
        format!("{named} names of classes; the model's output `{}` has {width} numbers", answers.output);
    Err(match options.classes {
        Some(_) => JobError::option("classes", format!("{found}; expected a name for each, one a line")),
        None => JobError::at(options.model.display(), found),
    })
}

/// The likeliest classes of a sample; none where nobody says that there are classes.
fn likeliest(values: &[f32], names: &[String], are_probabilities: bool, top: usize) -> Vec<Likely> {
    if names.is_empty() && !are_probabilities {
        return vec![];
    }
    let mut found: Vec<(usize, f64)> = match are_probabilities {
        true => values.iter().map(|value| f64::from(*value)).enumerate().collect(),
        false => softmax(values).into_iter().enumerate().collect(),
    };
    // Ties keep the order of the outputs.
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    let named = |(index, probability): (usize, f64)| Likely {
        class: names.get(index).cloned().unwrap_or_else(|| index.to_string()),
        index,
        probability,
    };
    found.into_iter().take(top).map(named).collect()
}

/// `exp(x) / sum of exp(x)`, the largest subtracted first.
fn softmax(values: &[f32]) -> Vec<f64> {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = values.iter().map(|x| (f64::from(*x) - f64::from(largest)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// A model that is asked about one file after the other.
struct Oracle<'a> {
    model: &'a Model,
    notes: &'a ModelNotes,
    options: &'a PredictOptions,
    env: &'a Env,
    store: Store,
    planned: Vec<Planned>,
    normalised: BTreeMap<String, Normalised>,
    told: Vec<String>,
    /// The output that answered last, and whether it gives probabilities.
    last: Option<(String, bool)>,
}

/// The model on so many samples of one form.
struct Planned {
    columns: Vec<ColumnInfo>,
    count: usize,
    session: Session,
    bound: Bound,
    output: usize,
}

/// The output of a model for some samples.
struct Answers {
    output: String,
    width: usize,
    values: Vec<f32>,
    are_probabilities: bool,
}

impl Answers {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }
}

impl<'a> Oracle<'a> {
    fn new(model: &'a Model, notes: &'a ModelNotes, options: &'a PredictOptions, env: &'a Env) -> Oracle<'a> {
        Oracle {
            model,
            notes,
            options,
            env,
            store: Store::new(&model.parameters),
            planned: vec![],
            normalised: BTreeMap::new(),
            told: vec![],
            last: None,
        }
    }

    fn answers(&mut self, file: &Path, asked: &Asked) -> Result<Answers> {
        let mut columns = asked.columns.clone();
        for (column, full_scale) in columns.iter_mut().zip(&asked.full_scales) {
            if column.dtype == DType::F32 {
                let found = self.normalisation(file, column, *full_scale)?;
                if *full_scale == 1.0 && found.constants.divisor.is_none() && column.extents.len() == 4 {
                    self.told.push(format!(
                        "{}: the model takes images, so these numbers are taken to be 0 for black and 1 for white",
                        file.display()
                    ));
                }
                found.constants.normalise(&file.display().to_string(), *full_scale, column)?;
                self.tell(file, &column.name, found);
            }
        }
        let infos: Vec<ColumnInfo> =
            columns.iter().map(|c| ColumnInfo::new(&c.name, c.dtype, &c.extents[1..])).collect();
        let mut answers: Option<Answers> = None;
        for first in (0..asked.count()).step_by(BATCH) {
            let count = BATCH.min(asked.count() - first);
            let place = self.plan(&infos, count)?;
            let part = self.planned[place].run(&columns, first, count)?;
            match &mut answers {
                None => answers = Some(part),
                Some(answers) => answers.values.extend(part.values),
            }
        }
        let answers = answers.ok_or_else(|| JobError::at(file.display(), "there are no samples"))?;
        self.last = Some((answers.output.clone(), answers.are_probabilities));
        Ok(answers)
    }

    /// What a float column is normalised with: as asked, else as the model's file says. Pictures of a model whose file
    /// does not say are refused: a guess would be a wrong answer that looks like a right one.
    fn normalisation(&self, file: &Path, column: &Column, full_scale: f32) -> Result<Normalised> {
        let info = ColumnInfo::new(&column.name, column.dtype, &column.extents[1..]);
        let by = |constants, source| Normalised { constants, full_scale, source };
        if let Some(choice) = &self.options.normalise {
            let found = choice.constants(&file.display().to_string(), &info, full_scale)?;
            return Ok(by(found.unwrap_or_else(|| stored(&info)), NormalisedBy::Asked(choice.clone())));
        }
        match self.notes.normalisation.get(&column.name) {
            Some(constants) => Ok(by(constants.clone(), NormalisedBy::Metadata)),
            None if full_scale == 1.0 => Ok(by(stored(&info), NormalisedBy::Stored)),
            None => Err(JobError::at(
                self.options.model.display(),
                format_args!(
                    "the file does not say what its input `{}` was normalised with; say what it was trained on: x / 255: \
                     option `normalise=unit`, ImageNet's mean and deviation: option `normalise=imagenet`, bytes as they \
                     are: option `normalise=none`",
                    column.name
                ),
            )),
        }
    }

    /// Keeps what an input was normalised with, and says so where another file's numbers had another scale.
    fn tell(&mut self, file: &Path, input: &str, found: Normalised) {
        match self.normalised.get(input) {
            None => {
                self.normalised.insert(input.to_owned(), found);
            }
            Some(first) if first.is_same(&found) => {}
            Some(_) => self.told.push(format!("{}, input {input}: {found}", file.display())),
        }
    }

    /// The place of the model that is planned for so many such samples.
    fn plan(&mut self, columns: &[ColumnInfo], count: usize) -> Result<usize> {
        if let Some(place) = self.planned.iter().position(|p| p.columns == columns && p.count == count) {
            return Ok(place);
        }
        let bound = binding::bind(self.model, columns, count)
            .map_err(|error| JobError::from(error).context(self.options.model.display()))?;
        let output = answering(&bound.model.graph, count).ok_or_else(|| {
            JobError::at(
                self.options.model.display(),
                "no output of the model has one row of numbers for a sample; `wattle run` writes outputs of any shape as arrays",
            )
        })?;
        let plan = Plan::compile(&bound.model.graph, &self.store, &self.env.plan_options())?;
        let session = Session::new(plan, &self.store)?;
        // Files of ever other shapes must not pile up.
        if self.planned.len() > 3 {
            self.planned.remove(0);
        }
        self.planned.push(Planned { columns: columns.to_vec(), count, session, bound, output });
        Ok(self.planned.len() - 1)
    }
}

/// Numbers as they are stored.
fn stored(info: &ColumnInfo) -> Normalisation {
    let channels = match info.extents[..] {
        [features] => features,
        [channels, _, _, ..] => channels,
        _ => 1,
    };
    Normalisation { divisor: Some(1.0), ..Normalisation::identity(channels) }
}

/// The first output of floats that has one row for each sample.
fn answering(graph: &Graph, count: usize) -> Option<usize> {
    graph.outputs().iter().position(|&id| {
        let extents = graph.extents(id).unwrap_or_default();
        let long = extents.iter().skip(1).filter(|extent| **extent != 1).count();
        graph.value(id).ty.dtype == DType::F32 && extents.first() == Some(&count) && long <= 1
    })
}

/// Whether a value is a softmax that nothing but its shape was changed of.
fn is_softmax(graph: &Graph, mut id: ValueId) -> bool {
    loop {
        let Source::Node { node, .. } = graph.value(id).source else { return false };
        let node = graph.node(node);
        match (&node.op, node.inputs.first()) {
            (Op::Softmax(op), _) => return !op.log,
            (Op::Identity(_) | Op::Reshape(_) | Op::Squeeze(_) | Op::Flatten(_), Some(Some(input))) => {
                id = *input
            }
            _ => return false,
        }
    }
}

impl Planned {
    /// Runs the samples from `first` on.
    fn run(&mut self, columns: &[Column], first: usize, count: usize) -> Result<Answers> {
        let graph = &self.bound.model.graph;
        for (index, feed) in self.bound.feeds.iter().enumerate() {
            let Some(column) = columns.iter().find(|column| column.name == feed.column) else { continue };
            let id = graph.inputs()[index];
            let (dtype, extents) = (graph.value(id).ty.dtype, graph.extents(id)?);
            let width = column.bytes.len() / column.extents[0];
            let mut part = column.clone();
            part.extents[0] = count;
            part.bytes = column.bytes[first * width..(first + count) * width].to_vec();
            let mut bytes = vec![0; extents.iter().product::<usize>() * dtype.size()];
            write_column(&part, dtype, count, (feed.axis, &extents), &mut bytes)?;
            self.session.write(index, &bytes)?;
        }
        self.session.run()?;
        let id = graph.outputs()[self.output];
        let values = self.session.output::<f32>(self.output)?.to_vec();
        Ok(Answers {
            output: graph.label(id),
            width: (values.len() / count).max(1),
            values,
            are_probabilities: is_softmax(graph, id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_classes_come_first_and_their_probabilities_are_a_softmax() {
        let names = ["cat".to_owned(), "dog".to_owned()];
        let found = likeliest(&[1000.0, 1001.0, 1000.0], &names, false, 2);
        assert_eq!((found[0].class.as_str(), found[1].class.as_str(), found.len()), ("dog", "cat", 2));
        let expected = 1.0 / (1.0 + 2.0 * (-1f64).exp());
        assert!((found[0].probability - expected).abs() < 1e-9, "{found:?}");
        // What is a probability stays it, and an output without a name is called by its number.
        let found = likeliest(&[0.1, 0.2, 0.7], &names, true, 1);
        assert_eq!((found[0].class.as_str(), found[0].index), ("2", 2));
        assert!(likeliest(&[0.1, 0.9], &[], false, 3).is_empty());
    }
}
