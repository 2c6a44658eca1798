//! The judge and the reports, on made-up evidence.
#![cfg(test)]

mod chaos;
mod controls;
mod evidence;
mod reports;
mod scene;
