// Notes what a reader would see as an error on the console, and what the page's policy keeps from being requested.
// It runs before the page's own scripts. What the browser says of its graphics driver is none of it.
"use strict";
window.errors = [];
window.addEventListener("error", (event) => window.errors.push(event.message));
window.addEventListener("unhandledrejection", (event) => window.errors.push(`not handled: ${event.reason}`));
window.addEventListener("securitypolicyviolation", (event) => window.errors.push(`requested: ${event.blockedURI}`));
window.printed = console.error;
console.error = (...words) => { window.errors.push(words.join(" ")); window.printed(...words); };
