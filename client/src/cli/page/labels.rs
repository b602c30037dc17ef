//! Names beside points, so that none covers another.
//!
//! Greedy: each label goes to the nearest free place around its point. One that finds none goes first in the next try,
//! a few times over; of all tries the one with the most labels is kept. What is left without a label is named in the
//! table on the page.

use super::plot::TEXT;

/// A rectangle in pixels: left, top, right, bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect(pub(super) i32, pub(super) i32, pub(super) i32, pub(super) i32);

impl Rect {
    /// The square around a point.
    pub(super) fn around((x, y): (i32, i32), radius: i32) -> Self {
        Self(x - radius, y - radius, x + radius, y + radius)
    }

    fn meets(self, other: Self) -> bool {
        self.0 < other.2 && other.0 < self.2 && self.1 < other.3 && other.1 < self.3
    }

    fn contains(self, (x, y): (i32, i32)) -> bool {
        self.0 <= x && x <= self.2 && self.1 <= y && y <= self.3
    }

    fn holds(self, other: Self) -> bool {
        self.0 <= other.0 && self.1 <= other.1 && self.2 >= other.2 && self.3 >= other.3
    }
}

/// A label to place: its point and its text.
pub(super) type Wanted<'a> = ((i32, i32), &'a str);

/// The most tries to place all labels.
const TRIES_MAX: usize = 24;

/// A place for each label, within these bounds and clear of these rectangles; none where there was no room. The first
/// labels choose first.
pub(super) fn place_all(bounds: Rect, taken: &[Rect], wanted: &[Wanted<'_>]) -> Vec<Option<Place>> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let mut best: Vec<Option<Place>> = vec![None; wanted.len()];
    for _ in 0..TRIES_MAX {
        let mut labels = Labels { bounds, taken: taken.to_vec(), placed: Vec::new() };
        let mut places = vec![None; wanted.len()];
        let mut missing = Vec::new();
        for index in &order {
            let (Some((point, text)), Some(place)) = (wanted.get(*index), places.get_mut(*index)) else {
                continue;
            };
            *place = labels.place(*point, text);
            if place.is_none() {
                missing.push(*index);
            }
        }
        let count = |places: &[Option<Place>]| places.iter().flatten().count();
        if count(&places) > count(&best) {
            best = places;
        }
        if missing.is_empty() {
            break;
        }
        order.retain(|index| !missing.contains(index));
        order.splice(0..0, missing);
    }
    best
}

/// What is taken already.
#[derive(Debug)]
struct Labels {
    bounds: Rect,
    taken: Vec<Rect>,
    placed: Vec<Rect>,
}

/// Distances from the point that are tried, in pixels. Beyond the first, a line leads to the label.
const DISTANCES: [i32; 7] = [10, 22, 36, 52, 70, 90, 115];

/// Distance of the points that stand for a line, in pixels.
const STEP: i32 = 4;

/// A place for a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Left end of the text, in the middle of its height.
    pub(super) left: (i32, i32),
    /// Where a line from the point to the label ends. Absent: the label is beside its point.
    pub(super) leader: Option<(i32, i32)>,
}

impl Labels {
    /// A free place beside the point.
    fn place(&mut self, (x, y): (i32, i32), text: &str) -> Option<Place> {
        let (width, half) = (width(text), TEXT / 2 + 1);
        for distance in DISTANCES {
            let near = distance * 7 / 10;
            let far = distance / 2;
            let middles = [
                (x + distance + width / 2, y),
                (x - distance - width / 2, y),
                (x, y - distance - half),
                (x, y + distance + half),
                (x + near + width / 2, y - near - half),
                (x + near + width / 2, y + near + half),
                (x - near - width / 2, y - near - half),
                (x - near - width / 2, y + near + half),
                (x + far, y - distance - half),
                (x + far, y + distance + half),
                (x - far, y - distance - half),
                (x - far, y + distance + half),
            ];
            for middle in middles {
                let left = (middle.0 - width / 2, middle.1);
                let rect = Rect(left.0 - 2, left.1 - half, left.0 + width + 2, left.1 + half);
                let nearest = (x.clamp(rect.0, rect.2), y.clamp(rect.1, rect.3));
                let leader = (distance > DISTANCES[0]).then_some(nearest);
                if self.is_free(rect) && !leader.is_some_and(|end| self.is_crossed((x, y), end)) {
                    self.taken.push(rect);
                    self.placed.push(rect);
                    return Some(Place { left, leader });
                }
            }
        }
        None
    }

    fn is_free(&self, rect: Rect) -> bool {
        self.bounds.holds(rect) && !self.taken.iter().any(|taken| taken.meets(rect))
    }

    /// Whether a line between two points runs through a label.
    fn is_crossed(&self, from: (i32, i32), to: (i32, i32)) -> bool {
        along(from, to).any(|point| self.placed.iter().any(|label| label.contains(point)))
    }
}

/// Points on the line between two, a few pixels apart.
pub(super) fn along(from: (i32, i32), to: (i32, i32)) -> impl Iterator<Item = (i32, i32)> {
    let (across, down) = (to.0 - from.0, to.1 - from.1);
    let steps = (across.abs().max(down.abs()) / STEP).max(1);
    (0..=steps).map(move |step| (from.0 + across * step / steps, from.1 + down * step / steps))
}

/// About how wide a text is, in pixels; no font is at hand to measure.
fn width(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX / TEXT).saturating_mul(TEXT * 47) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_clear_of_points_and_of_each_other() {
        let bounds = Rect(0, 0, 600, 300);
        let points = [(300, 150), (305, 152), (310, 148), (590, 150), (300, 290)];
        let taken: Vec<_> = points.iter().map(|point| Rect::around(*point, 5)).collect();
        let places = place_all(bounds, &taken, &points.map(|point| (point, "some-model")));
        let half = TEXT / 2;
        let rects: Vec<_> = places
            .iter()
            .map(|place| place.expect("has room").left)
            .map(|(x, y)| Rect(x, y - half, x + width("some-model"), y + half))
            .collect();
        for (index, rect) in rects.iter().enumerate() {
            assert!(bounds.holds(*rect), "{rect:?}");
            let others = taken.iter().chain(&rects[..index]);
            assert!(!others.into_iter().any(|other| other.meets(*rect)), "{rect:?} covers another");
        }
    }

    #[test]
    fn without_room_there_is_no_label() {
        let wanted = [((20, 150), "a-name-that-is-too-long"), ((20, 250), "a")];
        let places = place_all(Rect(0, 0, 40, 300), &[], &wanted);
        assert!(places[0].is_none() && places[1].is_some(), "{places:?}");
    }
}
