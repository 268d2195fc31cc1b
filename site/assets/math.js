// Sets what is between dollars in the pages; KaTeX lies beside this file.
document.addEventListener("DOMContentLoaded", () => {
  for (const each of document.querySelectorAll(".arithmatex")) {
    const text = each.textContent.trim();
    katex.render(text.slice(2, -2), each, {displayMode: text.startsWith("\\["), throwOnError: true});
  }
});
