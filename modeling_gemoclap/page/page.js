() => {
  // What Gradio's components lack for screen readers. It runs again after every change of the page.
  const names = { "ge-result": "Result", "ge-comparison": "Result of the comparison", "ge-hits": "Result of the search" };
  const complete = () => {
    for (const [id, name] of Object.entries(names)) {
      const place = document.getElementById(id);
      if (place && !place.hasAttribute("aria-live")) {
        place.setAttribute("aria-live", "polite"); // what appears is read aloud
        place.setAttribute("role", "region");
        place.setAttribute("aria-label", name);
      }
    }
    for (const button of document.querySelectorAll(".upload-container[aria-label]")) {
      if (button.textContent.trim()) button.removeAttribute("aria-label"); // its text is its name
    }
  };
  complete();
  new MutationObserver(complete).observe(document.body, { childList: true, characterData: true, subtree: true });
}
