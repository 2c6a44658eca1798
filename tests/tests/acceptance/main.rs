//! What is promised, tried on real processes. All of it is one program: most of these tests wait for
//! deadlines, and wait for them at the same time.

mod abuse;
mod c_plugin;
mod chaos;
mod failures;
mod faults;
mod fleet;
mod gate;
mod harness;
mod html;
mod killed;
mod orphans;
mod python;
mod refused;
mod restart;
mod samples;
mod scenarios;
mod work;
mod zoo;
