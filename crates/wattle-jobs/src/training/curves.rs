//! The curves of a training, as a page.

use wattle_meter::Receipt;
use wattle_report::{Axis, Plot, Report};
use wattle_train::fit::Epoch;

/// What has been seen of a training, epoch by epoch.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    epochs: Vec<Epoch>,
}

impl Curves {
    /// The curves that a run's `metrics.jsonl` holds, from before this process; lines that are none are left out.
    pub fn read(bytes: &[u8]) -> Curves {
        let text = String::from_utf8_lossy(bytes);
        Curves { epochs: text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect() }
    }

    /// One more epoch. An epoch that is trained again after an interruption replaces itself.
    pub fn push(&mut self, epoch: &Epoch) {
        self.epochs.retain(|seen| seen.epoch < epoch.epoch);
        self.epochs.push(epoch.clone());
    }

    /// The page: how far the training is or how it ended, notes, a plot for each quantity.
    pub fn page(&self, title: &str, state: &str, notes: &[String], receipt: Option<&Receipt>) -> String {
        let mut report = Report::new(title, state);
        for note in notes {
            report = report.note(note);
        }
        report = report.section("Learning");
        if self.epochs.is_empty() {
            report = report.text("No epoch has ended yet.");
        }
        let of = |pick: &dyn Fn(&Epoch) -> Option<f64>| -> Vec<(f64, f64)> {
            self.epochs.iter().filter_map(|e| Some((e.epoch as f64, pick(e)?))).collect()
        };
        let axis = || Axis::linear("epoch");
        let mut plots = vec![];
        let mut loss = Plot::new("Loss", axis(), Axis::linear("mean of an epoch"))
            .line("training", of(&|e| Some(e.loss)));
        let validation = of(&|e| e.validation_loss);
        if !validation.is_empty() {
            loss = loss.line("validation", validation);
        }
        plots.push((loss, "Mean loss of every epoch; of the validation part where it was judged."));
        let mut names: Vec<&String> = self.epochs.iter().flat_map(|e| e.validation.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let points = of(&|e| e.validation.get(name).copied());
            let plot =
                Plot::new(name.as_str(), axis(), Axis::linear(name.as_str())).line("validation", points);
            plots.push((plot, "On the validation part."));
        }
        let single = [
            (
                "Learning rate",
                "learning rate",
                of(&|e| Some(e.learning_rate)),
                "Of the last step of every epoch.",
            ),
            (
                "Gradients",
                "norm",
                of(&|e| e.gradient_norm),
                "Mean norm of all gradients together, before clipping.",
            ),
            ("Energy", "J", of(&|e| e.joules), "Joules since this process began."),
        ];
        for (title, unit, points, caption) in single {
            if !points.is_empty() {
                plots.push((Plot::new(title, axis(), Axis::linear(unit)).line("training", points), caption));
            }
        }
        for (plot, caption) in plots.iter().filter(|_| !self.epochs.is_empty()) {
            report = report.figure(&plot.to_svg(), caption);
        }
        match receipt {
            Some(receipt) => report.receipt(receipt).to_html(),
            None => report.to_html(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch {
            epoch: number,
            loss: 1.0 / number as f64,
            learning_rate: 0.1,
            gradient_norm: Some(2.0),
            parts: Default::default(),
            validation_loss: None,
            validation: [("accuracy".to_string(), 0.5)].into(),
            joules: None,
        }
    }

    #[test]
    fn a_page_has_a_plot_for_each_quantity_that_is_known() {
        let mut curves = Curves::default();
        assert!(curves.page("a", "b", &[], None).contains("No epoch"));
        curves.push(&epoch(1));
        curves.push(&epoch(2));
        let page = curves.page("a", "epoch 2", &["<doubt>".into()], None);
        assert_eq!(page.matches("<svg").count(), 4, "loss, accuracy, rate, gradients; no joules");
        assert!(page.contains("&lt;doubt&gt;"));
    }

    #[test]
    fn an_epoch_that_is_trained_again_replaces_itself() {
        let mut curves = Curves::default();
        [1, 2, 3, 2].into_iter().for_each(|number| curves.push(&epoch(number)));
        assert_eq!(curves.epochs.iter().map(|e| e.epoch).collect::<Vec<_>>(), [1, 2]);
    }
}
