//! The decision core as a whole, over fake ports: what must hold whatever the models, the money, the
//! policy and the caller do. Time is tokio's paused clock, chance is a counter of seeds.

#[cfg(test)]
mod accounting;
#[cfg(test)]
mod credit;
#[cfg(test)]
mod hindsight;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod masks;
#[cfg(test)]
mod money;
#[cfg(test)]
mod propensity;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod stand;
