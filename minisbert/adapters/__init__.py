"""Models in the form that other libraries take; each file needs the library it is named for."""
