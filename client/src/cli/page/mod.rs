//! `evaluate --html`: one page for people. It stands for itself: no script, no font, no picture from elsewhere, and it
//! is light or dark as the reader's screen is.
//!
//! All text of the daemon is escaped on its way in; a name of a model is not to be trusted. The page must say in words
//! what the plots show, so that it can be read without them.

mod forest;
mod frontier;
mod labels;
mod plot;
mod reliability;

use std::fmt::Write as _;

use pointsman_client::v1;

use crate::cli::tables::{difference, estimate, excerpt, percent, score, time, word};

/// The longest name that is drawn into a plot, in letters.
const NAME_LETTERS_MAX: usize = 28;

/// The page of these evaluations.
///
/// # Errors
/// When a plot cannot be drawn.
pub(crate) fn of(evaluations: &[v1::Evaluation]) -> anyhow::Result<String> {
    let style = include_str!("style.css").replace("DARK\n", &plot::dark_rules());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Pointsman: evaluation of candidates</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
    );
    page += &opening(evaluations);
    if !evaluations.is_empty() {
        page += &overview(evaluations);
        page += &figure(
            "Value with interval",
            forest::plot(evaluations)?,
            "What each would have scored on the held-out decisions: the dot is the estimate (doubly robust for \
             candidates), the line its interval. The dashed line is what runs now; a candidate is shown to be better \
             where the interval of its gain, in the table above, lies above 0.",
        );
        page += &figure(
            "Cost and quality",
            frontier::plot(evaluations)?,
            "Up is better, left is cheaper. Rings are models asked alone, the diamond is what runs now, large dots are \
             the candidates; the line through a candidate shows it for other prices of money.",
        );
        page += &singles(evaluations);
        for (place, found) in evaluations.iter().enumerate() {
            page += &candidate(place, found)?;
        }
        page += READING;
    }
    page += "</body>\n</html>\n";
    Ok(page)
}

/// How to read the figures.
const READING: &str = "<h2>How to read this</h2>\n<dl>\n\
    <dt>value</dt><dd>Mean score of a request, 0 to 1, had the policy chosen: estimated from the decisions of the \
    policy that ran, each weighted by how likely either was to take it.</dd>\n\
    <dt>gain</dt><dd>The candidate's value less that of what runs now, compared row by row.</dd>\n\
    <dt>rows alike</dt><dd>Effective sample size: how many decisions of the candidate's own the log is worth.</dd>\n\
    <dt>agrees</dt><dd>Share of the requests for which both would have asked the same model first.</dd>\n\
    <dt>ECE, Brier</dt><dd>How far predicted probabilities are from what came true; 0 is perfect.</dd>\n</dl>\n";

fn opening(evaluations: &[v1::Evaluation]) -> String {
    let Some(first) = evaluations.first() else {
        return "<h1>There is no candidate</h1>\n<p>Train one with <code>pointsman train</code>.</p>\n".to_owned();
    };
    let passing: Vec<_> = evaluations
        .iter()
        .filter(|found| found.gate.as_ref().is_some_and(|gate| gate.passes))
        .map(|found| escape(&found.version))
        .collect();
    let headline = match (passing.as_slice(), evaluations.len()) {
        ([], 1) => "The candidate may not be promoted yet".to_owned(),
        ([], _) => "No candidate may be promoted yet".to_owned(),
        ([one], _) => format!("{one} may be promoted"),
        (several, all) => format!("{} of {all} candidates may be promoted", several.len()),
    };
    format!(
        "<h1>{headline}</h1>\n<p class=\"muted\">Estimated on {} decisions that {} took, the latest {} of the log; \
         feedback has judged {} of them. Intervals at {}. {}</p>\n",
        count(first.rows),
        escape(&first.incumbent_version),
        percent(first.held_out_fraction),
        count(first.judged_rows),
        percent(1.0 - 2.0 * first.delta),
        escape(&time(first.evaluated_at.as_ref())),
    )
}

/// A table of all candidates below what they are compared with.
fn overview(evaluations: &[v1::Evaluation]) -> String {
    let mut rows = String::new();
    if let Some(first) = evaluations.first() {
        let cost = money(usd_per_thousand(first.incumbent_cost_usd_nanos));
        rows += &row(
            &first.incumbent_version,
            "runs now",
            &[estimate(first.incumbent.as_ref()), String::new(), cost, String::new(), String::new()],
        );
        if let Some(single) = &first.best_single {
            let cost = money(usd_per_thousand(single.cost_usd_nanos));
            rows += &row(
                &single.model,
                "best single model",
                &[estimate(single.value.as_ref()), String::new(), cost, String::new(), String::new()],
            );
        }
    }
    for found in evaluations {
        let cells = [
            estimate(found.doubly_robust.as_ref()),
            difference(found.difference.as_ref()),
            money(usd_per_thousand(found.cost_usd_nanos)),
            format!("{:.0}", found.effective_sample_size),
            percent(found.agreement_share),
        ];
        rows += &row(&found.version, &badge(found.gate.as_ref()), &cells);
    }
    format!(
        "<div class=\"wide\"><table class=\"overview\">\n<thead><tr><th>policy</th><th></th><th class=\"n\">value</th>\
         <th class=\"n\">gain</th><th class=\"n\">cost of 1,000</th><th class=\"n\">rows alike</th>\
         <th class=\"n\">agrees</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// A row of a table: a name, markup beside it, and figures; an interval stands below its value.
fn row(name: &str, beside: &str, cells: &[String]) -> String {
    let mut text = format!("<tr><th scope=\"row\">{}</th><td class=\"muted\">{beside}</td>", escape(name));
    for cell in cells {
        // Writing to a string does not fail.
        let _ = match cell.split_once(" (") {
            None => write!(text, "<td class=\"n\">{}</td>", escape(cell)),
            Some((value, interval)) => {
                let interval = interval.trim_end_matches(')');
                write!(text, "<td class=\"n\">{}<small>{}</small></td>", escape(value), escape(interval))
            }
        };
    }
    text += "</tr>\n";
    text
}

/// Every model asked alone, for those who want the figures of the plot.
fn singles(evaluations: &[v1::Evaluation]) -> String {
    let Some(first) = evaluations.first().filter(|first| !first.singles.is_empty()) else {
        return String::new();
    };
    let mut rows = String::new();
    for single in &first.singles {
        let cost = money(usd_per_thousand(single.cost_usd_nanos));
        rows += &row(&single.model, "", &[estimate(single.value.as_ref()), cost, count(single.rows)]);
    }
    format!(
        "<details><summary>Every model asked alone</summary>\n<div class=\"wide\"><table>\n<thead><tr><th>model</th>\
         <th></th><th class=\"n\">value</th><th class=\"n\">cost of 1,000</th><th class=\"n\">judged rows</th></tr>\
         </thead>\n<tbody>\n{rows}</tbody></table></div></details>\n"
    )
}

fn badge(gate: Option<&v1::Gate>) -> String {
    match gate {
        None => "not judged".to_owned(),
        Some(gate) if gate.passes => "<span class=\"badge good\">may be promoted</span>".to_owned(),
        Some(_) => "<span class=\"badge bad\">held back</span>".to_owned(),
    }
}

fn figure(title: &str, plot: Option<String>, caption: &str) -> String {
    let Some(plot) = plot else { return String::new() };
    format!(
        "<h2>{title}</h2>\n<figure><div class=\"wide\">{plot}</div><figcaption>{caption}</figcaption></figure>\n"
    )
}

/// All that is known of one candidate.
fn candidate(place: usize, found: &v1::Evaluation) -> anyhow::Result<String> {
    let mut text = format!("<h2>{} {}</h2>\n", escape(&found.version), badge(found.gate.as_ref()));
    text += &reasons(found.gate.as_ref());
    text += "<div class=\"columns\">\n<div>\n<h3>Figures</h3>\n";
    text += &figures(found);
    text += "</div>\n<div>\n";
    if let Some(calibration) = &found.calibration
        && let Some(plot) = reliability::plot(calibration, plot::candidate(place))?
    {
        text += &format!(
            "<h3>Calibration</h3>\n<figure class=\"narrow\"><div>{plot}</div><figcaption>On the dashed line, \
             predictions are what comes true; large dots are many predictions. ECE {}, Brier {}, {} predictions.\
             </figcaption></figure>\n",
            score(calibration.ece),
            score(calibration.brier),
            count(calibration.rows)
        );
    }
    text += "</div>\n</div>\n";
    Ok(text)
}

/// Every condition of the gate, those that do not hold first.
fn reasons(gate: Option<&v1::Gate>) -> String {
    let Some(gate) = gate else { return String::new() };
    let (met, missing): (Vec<_>, Vec<_>) = gate.reasons.iter().partition(|reason| reason.holds);
    let mut text = "<ul class=\"reasons\">\n".to_owned();
    for reason in missing.iter().chain(&met) {
        let (class, mark) = if reason.holds { ("good", "holds") } else { ("bad", "fails") };
        let name = sentence(&word(&reason.name, ""));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "<li><span><span class=\"badge {class}\">{mark}</span></span><span><strong>{}.</strong> {}</span></li>",
            escape(&name),
            escape(&sentence(&reason.message))
        );
    }
    text += "</ul>\n";
    text
}

fn figures(found: &v1::Evaluation) -> String {
    let single = found.best_single.as_ref().map(|single| single.model.clone()).unwrap_or_default();
    let mut rows = vec![
        ("Value, doubly robust", estimate(found.doubly_robust.as_ref())),
        ("by self-normalised IPS", estimate(found.snips.as_ref())),
        ("by IPS", estimate(found.ips.as_ref())),
        ("by the direct method", estimate(found.direct.as_ref())),
        ("Gain on what runs now", difference(found.difference.as_ref())),
        ("Cost of 1,000 requests", money(usd_per_thousand(found.cost_usd_nanos))),
    ];
    if let Some(most) = found.cost_max_usd_nanos {
        rows.push(("may cost at most", money(usd_per_thousand(most))));
    }
    rows.extend([
        ("Rows alike", format!("{:.0}", found.effective_sample_size)),
        ("Agrees with what runs now", percent(found.agreement_share)),
        ("Choices the log could not show", percent(found.unsupported_share)),
    ]);
    let mut text = "<table><tbody>\n".to_owned();
    let mut put = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "<tr><td>{}</td><td class=\"n\">{}</td></tr>", escape(name), escape(value));
    };
    for (name, value) in &rows {
        put(name, value);
    }
    if !single.is_empty() {
        put(&format!("Gain on {single} alone"), &difference(found.difference_to_single.as_ref()));
    }
    text += "</tbody></table>\n";
    text
}

/// The text with a capital letter at its beginning.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A name that fits into a plot.
fn short(name: &str) -> String {
    excerpt(name, NAME_LETTERS_MAX)
}

/// Dollars for a thousand requests of this cost.
#[expect(clippy::cast_precision_loss, reason = "a figure that is shown with three digits")]
fn usd_per_thousand(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}

/// Dollars with three digits that count.
fn money(usd: f64) -> String {
    let decimals = match usd.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        size if size >= 0.1 => 3,
        size if size >= 0.01 => 4,
        _ => 6,
    };
    format!("${usd:.decimals$}")
}

/// The same without zeros at its end, for the round values of an axis.
fn round_money(usd: f64) -> String {
    let text = money(usd);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    text.to_owned()
}

/// A score with two decimals, or three where it needs them, for the round values of an axis.
fn round_score(value: f64) -> String {
    let text = score(value);
    text.strip_suffix('0').map(str::to_owned).unwrap_or(text)
}

/// A count with a comma before every three digits.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text that is only text in HTML and SVG.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
