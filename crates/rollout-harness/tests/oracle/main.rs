//! The judge and the reports, on made-up evidence.
#![cfg(test)]

mod controls;
mod evidence;
mod reports;
